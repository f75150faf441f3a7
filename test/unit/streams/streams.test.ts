import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { silentMs, type StreamStore, type StreamWrite } from '../../../lib/backplane/backplane.ts'
import { MemoryStreams } from '../../../lib/backplane/memory/streams.ts'
import { EnvelopeFactory } from '../../../lib/delivery/envelopes.ts'
import { Streams } from '../../../lib/streams/streams.ts'
import { gate } from '../../helpers/service.ts'

/** A store whose clock the test moves, and what its members are told. */
function storeOf () {
  let now = 0
  const memory = new MemoryStreams(() => now)
  const told: string[] = []
  const store: StreamStore = {
    write: async write => memory.write(write, () => told.push(write.envelope.payload.toString())),
    read: async (name, from) => memory.read(name, from),
    list: async group => memory.list(group)
  }
  const envelopes = new EnvelopeFactory()
  const write = async (more: Partial<StreamWrite>): Promise<string> => await store.write({
    group: 'g',
    id: 's',
    epoch: 'e',
    at: 0,
    text: '',
    keepMs: 60_000,
    renew: true,
    envelope: envelopes.message([{ kind: 'group', name: 'g' }], 'piece', {}),
    ...more
  })
  return { store, told, write, pass: (ms: number) => { now += ms }, reader: new Streams({ streams: store }, envelopes) }
}

t.test('a stream that nothing came of is ended by whoever reads, once for all', async t => {
  const { write, pass, reader, told } = storeOf()
  await write({ head: '{"by":"x"}', text: 'so far' })
  t.match(await reader.readAll({ group: 'g', id: 's' }), { state: 'open', text: 'so far' })
  pass(silentMs + 1)
  const all = await Promise.all([1, 2, 3].map(async () => await reader.readAll({ group: 'g', id: 's' })))
  for (const reading of all) t.match(reading, { state: 'failed', text: 'so far', error: { code: 'WSG_STREAM_LOST' } })
  t.equal(told.filter(text => text.includes('WSG_STREAM_LOST')).length, 1)
  t.equal(await write({ at: 6, text: ' late' }), 'ended')
})

t.test('after an outage a producer has the time to write again', async t => {
  const { write, pass, reader, told } = storeOf()
  await write({ head: '{"by":"x"}', text: 'so far' })
  pass(silentMs + 1)
  const reading = reader.readAll({ group: 'g', id: 's' })
  await sleep(50)
  t.equal(await write({ at: 6, text: ', and on' }), 'written')
  t.match(await reading, { state: 'open', text: 'so far, and on' })
  t.strictSame(told, ['piece', 'piece'])
})

t.test('pipe resolves when the end of its stream is stored, also of one that was stopped', async t => {
  const { store } = storeOf()
  const { opened, open } = gate()
  const order: string[] = []
  const slow: StreamStore = {
    ...store,
    async write (write) {
      if (write.end === undefined) return await store.write(write)
      await opened
      const written = await store.write(write)
      order.push(`stored: ${write.end.state}`)
      return written
    }
  }
  const streams = new Streams({ streams: slow }, new EnvelopeFactory())
  async function * source (): AsyncGenerator<string> {
    yield 'so far'
    t.ok(streams.stopHere({ group: 'g', id: 's' }))
    yield ', and more'
  }
  const piped = streams.begin('g', 's').pipe(source()).then(state => order.push(`piped: ${state}`))
  await sleep(50)
  open()
  await piped
  t.strictSame(order, ['stored: stopped', 'piped: stopped'])
  await streams.close()
})
