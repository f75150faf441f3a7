import t from 'tap'
import { mock } from 'node:test'
import { DeliverySpans } from '../../../lib/delivery/spans.ts'
import type { Tracing } from '../../../plugin.ts'

const target = { kind: 'group', name: 'room' } as const

type Told = Parameters<Tracing['delivered']>

function recorder (): { readonly told: Told[], readonly failures: unknown[], readonly spans: DeliverySpans } {
  const told: Told[] = []
  const failures: unknown[] = []
  const tracing: Tracing = {
    run: (_span, work) => work(),
    inject: () => undefined,
    delivered (...args) {
      told.push(args)
      if (args[1] === 'bad') throw new Error('a span processor failed')
    }
  }
  return { told, failures, spans: new DeliverySpans(tracing, error => failures.push(error)) }
}

const delivery = (traceparent: string) => ({ target, bytes: 7, recipients: 3, traceparent, startedAt: 1_000, endedAt: 1_004 })

t.test('a delivery is told with the times it had, a second later at most, and once', async (t) => {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const { told, spans } = recorder()
  spans.add(delivery('a'))
  mock.timers.tick(600)
  spans.add(delivery('b'))
  t.strictSame(told, [], 'it waits for others')
  mock.timers.tick(400)
  const facts = { name: 'deliver', to: 'group', group: 'room', bytes: 7, recipients: 3 }
  t.strictSame(told, [[facts, 'a', 1_000, 1_004], [facts, 'b', 1_000, 1_004]], 'the second did not put the first off')
  mock.timers.tick(2_000)
  t.equal(told.length, 2)
  spans.add(delivery('c'))
  spans.flush()
  t.equal(told.length, 3)
  mock.timers.tick(2_000)
  t.equal(told.length, 3)
})

t.test('no more than 64 wait', async (t) => {
  const { told, spans } = recorder()
  for (let i = 0; i < 130; i++) spans.add(delivery(String(i)))
  t.strictSame(told.map(([, traceparent]) => traceparent), Array.from({ length: 128 }, (_, i) => String(i)), 'in their order')
  spans.flush()
  t.equal(told.length, 130)
})

t.test('one that fails keeps the others from nothing', async (t) => {
  const { told, failures, spans } = recorder()
  for (const traceparent of ['a', 'bad', 'c']) spans.add(delivery(traceparent))
  spans.flush()
  t.equal(told.length, 3)
  t.match(failures, [{ message: 'a span processor failed' }])
})
