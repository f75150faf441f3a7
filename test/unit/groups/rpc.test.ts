import t from 'tap'
import { deferred } from '../../../lib/deadline.ts'
import type { Envelope, Target } from '../../../lib/backplane/backplane.ts'
import { WebsocketGroupsError } from '../../../lib/errors.ts'
import { Metrics } from '../../../lib/metrics.ts'
import { InstanceRpc, type Command, type CommandHandler } from '../../../lib/groups/rpc.ts'
import { EnvelopeFactory } from '../../../lib/delivery/envelopes.ts'
import type { Data, Json } from '../../../lib/types.ts'
import { FakeBackplane, fakeInstance, seededRandom } from '../../helpers/fakes.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'

noUnhandled(t)

const target: Target = { kind: 'instance', name: 'other' }
const command: Command = { op: 'groups', connectionId: 'other.1' }

interface Parts {
  readonly requests: InstanceRpc
  readonly backplane: FakeBackplane
  readonly sender: EnvelopeFactory
  readonly metrics: Metrics
  /** Something arrives. */
  receive (kind: 'request' | 'reply', command: unknown, more?: Partial<Envelope>): void
}

function parts (handle: CommandHandler = async () => null, timeoutMs = 50): Parts {
  const [backplane, sender, metrics] = [new FakeBackplane(), new EnvelopeFactory(), new Metrics()]
  const requests = new InstanceRpc(backplane, sender, handle, timeoutMs, metrics)
  return {
    requests,
    backplane,
    sender,
    metrics,
    receive (kind, command, more = {}) {
      const text = typeof command === 'string' ? command : JSON.stringify(command)
      requests.receive({ ...new EnvelopeFactory().command(kind, target, text), ...more })
    }
  }
}

const idOf = ({ published }: FakeBackplane): number => (JSON.parse(published.at(-1)?.command ?? '{}') as { id: number }).id

t.test('a request is answered when every instance that took it has replied, in whatever order that is known', async (t) => {
  const { requests, backplane, receive } = parts()
  const taken = deferred<number>()
  backplane.onPublish = async () => await taken.promise
  const asked = requests.ask(target, command)
  receive('reply', { id: idOf(backplane), answer: 'early' })
  taken.resolve(2)
  receive('reply', { id: idOf(backplane), answer: null })
  t.strictSame(await asked, ['early', null])

  backplane.onPublish = async () => undefined
  const unknown = requests.ask(target, command)
  receive('reply', { id: idOf(backplane), answer: 1 })
  t.strictSame(await unknown, [1], 'a backplane that cannot tell how many: one')

  backplane.onPublish = async () => 0
  t.strictSame(await requests.ask(target, command), [], 'nobody is there')
})

t.test('an answer of undefined arrives as null', async (t) => {
  const { requests, backplane, receive } = parts()
  const asked = requests.ask(target, command)
  await Promise.resolve()
  receive('reply', { id: idOf(backplane) })
  t.strictSame(await asked, [null])
})

t.test('a request without an answer, or whose publish fails, settles', async (t) => {
  const { requests, backplane } = parts()
  await t.rejects(requests.ask(target, command), { code: 'WSG_TIMEOUT', message: /groups was not answered by instance other/ })
  backplane.onPublish = async () => { throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE') }
  await t.rejects(requests.ask(target, command), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
  backplane.onPublish = async () => await new Promise(() => {})
  await t.rejects(requests.ask(target, command), { code: 'WSG_TIMEOUT' }, 'a publish that never settles')
})

t.test('close settles what is pending', async (t) => {
  const { requests } = parts(undefined, 60_000)
  const asked = [requests.ask(target, command), requests.ask(target, command)]
  requests.close()
  for (const one of asked) await t.rejects(one, { code: 'WSG_CLOSED' })
  requests.close()
  await t.rejects(requests.ask(target, command), { code: 'WSG_CLOSED' }, 'a later one')
  await t.rejects(requests.tell(target, command), { code: 'WSG_CLOSED' })
})

t.test('after the close nobody is asked or told, this instance neither', async (t) => {
  const { commands } = fakeInstance()
  let handled = 0
  commands.instances.on('load', () => ++handled)
  commands.close()
  await t.rejects(commands.instances.ask('load', null), { code: 'WSG_CLOSED' })
  await t.rejects(commands.instances.emit('load', null), { code: 'WSG_CLOSED' })
  t.equal(handled, 0)
})

t.test('an error of the other side arrives with its code and detail; one that is not known here is an unknown outcome', async (t) => {
  const cases: ReadonlyArray<readonly [unknown, string, RegExp]> = [
    [{ code: 'WSG_CONNECTION_GONE', detail: 'a.1' }, 'WSG_CONNECTION_GONE', /a\.1$/],
    [{ code: 'WSG_TOO_MANY_GROUPS' }, 'WSG_TOO_MANY_GROUPS', /maxGroupsPerConnection/],
    [{ code: 'WSG_CONNECTION_GONE', detail: { not: 'text' } }, 'WSG_CONNECTION_GONE', /gone|closed/],
    [{ code: 'WSG_FROM_THE_FUTURE', detail: 'x' }, 'WSG_TIMEOUT', /WSG_FROM_THE_FUTURE/],
    [{ code: 'toString' }, 'WSG_TIMEOUT', /toString/],
    [{ code: 5 }, 'WSG_TIMEOUT', /5/],
    [{}, 'WSG_TIMEOUT', /undefined/], [null, 'WSG_TIMEOUT', /undefined/], ['text', 'WSG_TIMEOUT', /undefined/],
    [[], 'WSG_TIMEOUT', /undefined/], [0, 'WSG_TIMEOUT', /undefined/]
  ]
  const { requests, backplane, receive } = parts()
  for (const [error, code, message] of cases) {
    const asked = requests.ask(target, command)
    receive('reply', { id: idOf(backplane), error })
    await t.rejects(asked, { code, message }, JSON.stringify(error))
  }
})

t.test('a request is handled once and its outcome goes back to who asked, as it was asked', async (t) => {
  const handled: Array<readonly [Command, Data]> = []
  const { backplane, receive } = parts(async (command, data) => {
    handled.push([command, data])
    if (command.op === 'leaveAll') throw new WebsocketGroupsError('WSG_CONNECTION_GONE', 'it')
    if (command.op === 'groups') throw new TypeError('a bug')
    return { done: command.op }
  })
  receive('request', { id: 7, op: 'send', connectionId: 'x.1' }, { origin: 'asker00000', payload: Buffer.from('grüße') })
  receive('request', { id: 8, op: 'send', connectionId: 'x.1' }, { origin: 'asker00000', payload: Buffer.from([1]), binary: true })
  receive('request', { id: 9, op: 'leaveAll', connectionId: 'x.1' }, { origin: 'asker00000' })
  receive('request', { id: 10, op: 'groups', connectionId: 'x.1' }, { origin: 'asker00000' })
  await new Promise(resolve => setImmediate(resolve))
  t.strictSame(handled.map(([, data]) => data), ['grüße', Buffer.from([1]), '', ''])
  t.strictSame(handled[0]?.[0], { op: 'send', connectionId: 'x.1' })
  t.strictSame(
    backplane.published.map(({ kind, target }) => [kind, target.kind, target.name]), Array(4).fill(['reply', 'instance', 'asker00000'])
  )
  t.strictSame(backplane.published.map(({ command }) => JSON.parse(command) as Json), [
    { id: 7, answer: { done: 'send' } }, { id: 8, answer: { done: 'send' } },
    { id: 9, error: { code: 'WSG_CONNECTION_GONE', detail: 'it' } },
    { id: 10, error: { code: 'WSG_TIMEOUT', detail: 'the other instance failed: a bug' } }
  ])
})

t.test('an answer that JSON cannot express is the failure of the instance that gave it', async (t) => {
  const { backplane, receive } = parts(async () => 1n)
  receive('request', { id: 3, ...command }, { origin: 'asker00000' })
  await new Promise(resolve => setImmediate(resolve))
  t.match(JSON.parse(backplane.published[0]?.command ?? ''), { id: 3, error: { code: 'WSG_TIMEOUT', detail: /BigInt/ } })
})

t.test('an instance that asks itself gets its answer without another message', async (t) => {
  const { requests, backplane, sender, receive } = parts(async () => 'own')
  const asked = requests.ask(target, command)
  receive('request', JSON.parse(backplane.published[0]?.command ?? ''), { origin: sender.origin })
  t.strictSame(await asked, ['own'])
  t.equal(backplane.published.length, 1)
})

t.test('a reply that cannot be sent is counted, and nothing else', async (t) => {
  const { backplane, metrics, receive } = parts()
  backplane.onPublish = async () => { throw new WebsocketGroupsError('WSG_TIMEOUT') }
  receive('request', { id: 1, ...command }, { origin: 'asker00000' })
  await new Promise(resolve => setImmediate(resolve))
  t.equal(metrics.repliesLost, 1)
})

t.test('late, doubled and foreign replies change nothing', async (t) => {
  const { requests, backplane, receive } = parts()
  receive('reply', { id: 1, answer: 'before anything was asked' })
  const asked = requests.ask(target, command)
  await new Promise(resolve => setImmediate(resolve))
  receive('reply', { id: idOf(backplane) + 1, answer: 'for another request' })
  receive('reply', { id: idOf(backplane), answer: 'right' })
  receive('reply', { id: idOf(backplane), answer: 'again' })
  receive('reply', { id: idOf(backplane), error: { code: 'WSG_CLOSED' } })
  t.strictSame(await asked, ['right'])
})

t.test('no text that arrives as a command makes it throw', async (t) => {
  const handled: unknown[] = []
  const { requests, receive } = parts(async command => { handled.push(command); return null })
  for (const text of ['', '{', 'null', '5', '"x"', '[]', '{}', '{"id":"1"}', '{"id":null}', 'undefined', '\0', '{"__proto__":{"id":1}}']) {
    receive('request', text)
    receive('reply', text)
  }
  t.strictSame(handled, [])
  const random = seededRandom(7)
  const asked = Promise.allSettled(Array.from({ length: 20 }, async () => await requests.ask(target, command)))
  const values = [undefined, null, 0, 1, 3, 19, -1, 1e300, '', '1', 'join', 'x.1', true, [], {}, { code: 'WSG_CLOSED' }, {
    code: 'toString', detail: 1
  }, [null], { id: 1 }]
  const value = (): unknown => values[random(values.length)]
  for (let n = 0; n < 5_000; n++) {
    const text = JSON.stringify({ id: value(), op: value(), connectionId: value(), group: value(), answer: value(), error: value() })
    receive('reply', random(4) === 0 ? text.slice(0, random(text.length)) : text)
    receive('request', text, { origin: 'asker00000' })
  }
  await asked
  t.ok(handled.length > 1_000, 'some of it even was a request')
})
