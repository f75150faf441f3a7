import t, { type Test } from 'tap'
import { deferred } from '../../../lib/deadline.ts'
import type { Envelope, Target } from '../../../lib/backplane/backplane.ts'
import type { Broadcaster } from '../../../lib/delivery/broadcaster.ts'
import { WebsocketGroupsError } from '../../../lib/errors.ts'
import type { EchoFilter } from '../../../lib/delivery/echo.ts'
import type { Metrics } from '../../../lib/metrics.ts'
import type { OutagePolicy } from '../../../lib/options/types.ts'
import { fakeConnection, fakeInstance, member, type FakeBackplane, type FakeConnection } from '../../helpers/fakes.ts'

interface Parts {
  readonly backplane: FakeBackplane
  readonly broadcaster: Broadcaster
  readonly delivery: EchoFilter
  readonly metrics: Metrics
  readonly one: FakeConnection
  readonly both: FakeConnection
  /** The backplane brings back what was published last, to one of its groups. */
  echo (group: string): void
}

/** `one` is in group g, `both` is in g and h. */
function parts (policy: OutagePolicy['broadcast'] = 'local'): Parts {
  const { hub, backplane, broadcaster, echoes, metrics } = fakeInstance({ log: false, outage: { broadcast: policy } })
  const [one, both] = [fakeConnection('one'), fakeConnection('both')]
  for (const connection of [one, both]) {
    hub.add(connection)
    hub.join(connection, 'g', member(connection))
  }
  hub.join(both, 'h', member(both))
  return {
    backplane,
    broadcaster,
    delivery: echoes,
    metrics,
    one,
    both,
    echo (name) {
      const target: Target = { kind: 'group', name }
      echoes.receive({ ...backplane.published.at(-1) as Envelope, target })
    }
  }
}

/** Only for groups without a log the instance delivers what it publishes by itself, and has a policy for what could not be published. */
function volatile (name: string, run: (t: Test) => Promise<void>): void {
  void t.test(`volatile groups: ${name}`, run)
}

const timeout = (): WebsocketGroupsError => new WebsocketGroupsError('WSG_TIMEOUT')
const unavailable = (): WebsocketGroupsError => new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE')

volatile('normally the echo is what is delivered, whether it comes before or after the acknowledgement', async (t) => {
  const { backplane, broadcaster, one, both, echo } = parts()
  backplane.onPublish = async () => { echo('g'); return 3 }
  t.strictSame(await broadcaster.toGroups('g', 'before'), { scope: 'cluster', localRecipients: 2, instances: 3 })
  backplane.onPublish = async () => undefined
  t.strictSame(await broadcaster.toGroups('g', 'after'), { scope: 'cluster', localRecipients: 2 })
  t.strictSame(one.written, ['before'])
  echo('g')
  t.strictSame([one.written, both.written], [['before', 'after'], ['before', 'after']])
})

volatile('a publish that failed after some echoes came is delivered to those they did not reach', async (t) => {
  const { backplane, broadcaster, one, both, echo } = parts()
  backplane.onPublish = async () => { echo('h'); throw timeout() }
  t.strictSame(await broadcaster.toGroups(['g', 'h'], 'x'), { scope: 'local', localRecipients: 2 })
  t.strictSame([one.written, both.written], [['x'], ['x']])
  echo('g')
  echo('h')
  t.strictSame([one.written, both.written], [['x'], ['x']], 'and echoes that come later are dropped')
})

volatile('a publish that failed after all echoes came is not delivered again', async (t) => {
  const { backplane, broadcaster, one, both, echo } = parts()
  backplane.onPublish = async () => { echo('g'); echo('h'); throw timeout() }
  t.strictSame(await broadcaster.toGroups(['g', 'h'], 'x'), { scope: 'local', localRecipients: 2 })
  t.strictSame([one.written, both.written], [['x'], ['x']])
})

volatile('while its own subscription is interrupted an instance delivers what it publishes by itself, once', async (t) => {
  const { backplane, broadcaster, one, both, echo } = parts()
  backplane.deaf = true
  t.strictSame(await broadcaster.toGroups('g', 'deaf'), { scope: 'cluster', localRecipients: 2, instances: 1 })
  echo('g')
  backplane.onPublish = async () => { backplane.deaf = false; return 1 }
  await broadcaster.toGroups('g', 'deaf at the start')
  backplane.onPublish = async () => { backplane.deaf = true; return 1 }
  await broadcaster.toGroups('g', 'deaf at the end')
  backplane.onPublish = async () => { echo('g'); backplane.deaf = true; return 1 }
  await broadcaster.toGroups(['g', 'h'], 'deaf in between')
  backplane.deaf = false
  echo('h')
  const all = ['deaf', 'deaf at the start', 'deaf at the end', 'deaf in between']
  t.strictSame([one.written, both.written], [all, all])
})

volatile('what is surely not sent needs no memory, so that an outage pushes out nothing that may still come back', async (t) => {
  const { backplane, broadcaster, one, echo } = parts()
  backplane.onPublish = async () => { throw timeout() }
  await broadcaster.toGroups('g', 'may come back')
  const mayComeBack = backplane.published.at(-1) as Envelope
  backplane.onPublish = async () => { throw unavailable() }
  for (let n = 0; n < 10_001; n++) await broadcaster.toGroups('h', 'surely not sent')
  backplane.published.push(mayComeBack)
  echo('g')
  t.strictSame(one.written, ['may come back'])
})

volatile('of messages that may come back the latest 10,000 are remembered', async (t) => {
  const { backplane, broadcaster, delivery, one } = parts()
  backplane.onPublish = async () => { throw timeout() }
  for (let n = 0; n < 10_002; n++) await broadcaster.toGroups('g', String(n))
  one.written.length = 0
  for (const envelope of backplane.published.slice(-10_000)) delivery.receive(envelope)
  t.strictSame(one.written, [])
})

volatile('each policy decides what a failed publish means', async (t) => {
  for (const error of [timeout(), unavailable()]) {
    const reject = parts('reject')
    reject.backplane.onPublish = async () => { throw error }
    await t.rejects(reject.broadcaster.toGroups('g', 'x'), error)
    const drop = parts('drop')
    drop.backplane.onPublish = async () => { throw error }
    t.strictSame(await drop.broadcaster.toUser('ann', 'x'), { scope: 'none', localRecipients: 0 })
    t.equal(drop.metrics.publishesDropped, 1)
    const local = parts('local')
    local.backplane.onPublish = async () => { throw error }
    t.strictSame(await local.broadcaster.toAll('x'), { scope: 'local', localRecipients: 2 })
    t.match(local.metrics, { publishedLocally: 1, messagesPublished: 1, framesSent: 2, messagesDelivered: 0 })
    t.strictSame([reject.one.written, drop.one.written, local.one.written], [[], [], ['x']])
  }
})

volatile('an error that is no outage is never hidden by a policy', async (t) => {
  for (const policy of ['local', 'drop', 'reject'] as const) {
    const { backplane, broadcaster, one } = parts(policy)
    backplane.onPublish = async () => { throw new TypeError('a bug') }
    await t.rejects(broadcaster.toGroups('g', 'x'), TypeError)
    t.strictSame(one.written, [])
  }
})

volatile('messages of other origins are delivered whatever their number', async (t) => {
  const { backplane, broadcaster, delivery, one } = parts()
  backplane.onPublish = async () => { throw timeout() }
  await broadcaster.toGroups('g', 'own')
  delivery.receive({ ...backplane.published[0] as Envelope, origin: 'another', payload: Buffer.from('same sequence') })
  t.strictSame(one.written, ['own', 'same sequence'])
})

volatile('two messages in flight do not mix up their echoes', async (t) => {
  const { backplane, broadcaster, delivery, one } = parts()
  const [first, second] = [deferred<number>(), deferred<number>()]
  const answers = [first.promise, second.promise]
  backplane.onPublish = async () => await (answers.shift() as Promise<number>)
  const sent = [broadcaster.toGroups('g', '1'), broadcaster.toGroups('g', '2')]
  delivery.receive(backplane.published[1] as Envelope)
  second.reject(timeout())
  first.reject(timeout())
  t.strictSame((await Promise.all(sent)).map(({ scope }) => scope), ['local', 'local'])
  t.strictSame(one.written.sort(), ['1', '2'])
})
