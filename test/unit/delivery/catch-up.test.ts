import t from 'tap'
import type { LogPosition } from '../../../lib/backplane/backplane.ts'
import { formatPosition, logStart } from '../../../lib/backplane/position.ts'
import type { Backlog } from '../../../lib/delivery/backlog.ts'
import { CatchUp } from '../../../lib/delivery/catch-up.ts'
import { GivenRanges } from '../../../lib/delivery/given-ranges.ts'
import { Hub } from '../../../lib/hub/hub.ts'
import type { LocalMember } from '../../../lib/hub/local-member.ts'
import { messageEnvelope } from '../../helpers/envelopes.ts'
import { fakeConnection, member } from '../../helpers/fakes.ts'

const at = (epoch: string, offset: number): LogPosition => ({ epoch, offset, nonce: 1 })
const logged = (epoch: string, offset: number) => ({
  ...messageEnvelope(`${epoch} ${offset}`, { origin: epoch, sequence: offset, target: { kind: 'group', name: 'g' } }),
  position: at(epoch, offset)
})

/** What a client is told that comes from 38 messages into a log that is lost while the instance looks where it ends. */
function told (first: LogPosition | undefined, then: LogPosition, asks: 'before' | 'after' = 'before'): string[] {
  const connection = fakeConnection('a', undefined, true)
  const hub = new Hub()
  hub.add(connection)
  const joined = hub.join(connection, 'g', member(connection)) as LocalMember
  let reached: LogPosition | undefined
  const position = (): LogPosition | undefined => reached
  const backlog = { lostPlace: () => undefined } as unknown as Backlog
  const catching = { member: joined, holdback: joined.startHold() }
  const catchUp = new CatchUp(hub, { position }, backlog, new GivenRanges(hub, { position }), catching, at('old', 36))
  const next = [logged('new', 1), logged('new', 2)]
  const late = [
    () => hub.deliver(logged('old', 38)),
    () => hub.announceGap('g', { reason: 'epoch', position: logStart, epoch: '' }),
    ...next.map(envelope => () => hub.deliver(envelope))
  ]
  const deliverUpTo = (end: LogPosition): void => {
    reached = end
    for (const deliver of late.splice(0, end.epoch === 'old' ? 1 : late.length)) deliver()
  }
  if (asks === 'before') catchUp.asking()
  if (first !== undefined) deliverUpTo(first)
  if (asks === 'after') catchUp.asking()
  catchUp.give({ recovered: false, reason: 'epoch', before: logStart, messages: next, epoch: 'new', end: at('new', 2), more: false })
  deliverUpTo(then)
  deliverUpTo(at('new', 2))
  hub.deliver(logged('new', 3))
  return connection.written.map(text => JSON.parse(text) as { type: string, data?: string }).map(({ type, data }) => data ?? type)
}

t.test('who was told that a log is lost is given nothing of it by an instance that did not know it when the client came', t => {
  const expected = ['new 1', 'new 2', 'new 3']
  t.strictSame(told(at('old', 38), at('new', 2)), expected, 'the instance notices after the page')
  t.strictSame(told(at('new', 2), at('new', 2)), expected, 'the instance notices before')
  for (const first of [at('old', 38), at('new', 2)]) {
    t.strictSame(told(first, at('new', 2), 'after'), expected, `the instance was at ${first.epoch} when the page was asked for`)
  }
  t.strictSame(told(undefined, at('old', 38)), expected, 'the instance knows its place only after the page, in the lost log')
  t.strictSame(told(undefined, at('new', 2)), expected, 'or in the next one')
  t.end()
})

t.test('a client of another log, which cannot be read, goes on after what came before its page, and is told so once', t => {
  const connection = fakeConnection('a', undefined, true)
  const hub = new Hub()
  hub.add(connection)
  const joined = hub.join(connection, 'g', member(connection)) as LocalMember
  const position = (): LogPosition => at('new', 7)
  const backlog = { lostPlace: () => undefined } as unknown as Backlog
  const catching = { member: joined, holdback: joined.startHold() }
  const catchUp = new CatchUp(hub, { position }, backlog, new GivenRanges(hub, { position }), catching, at('old', 48))
  hub.deliver(logged('new', 6))
  hub.deliver(logged('new', 7))
  catchUp.asking()
  catchUp.give({ recovered: false, reason: 'unavailable', before: at('new', 7), claimed: at('old', 48), messages: [], more: false })
  // A copy for a group without a log is given all the same: the client has no other.
  hub.join(connection, 'v', member(connection))
  hub.deliver({
    ...messageEnvelope('to both', { origin: 'new', sequence: 0, target: { kind: 'group', name: 'v' } }),
    shared: true,
    places: [{ group: 'g', epoch: 'new', offset: 7 }]
  })
  for (const offset of [8, 9]) hub.deliver(logged('new', offset))
  const frames = connection.written.map(text => JSON.parse(text) as { type: string, position?: string, data?: string })
  t.strictSame(frames.map(({ type, position, data }) => data ?? `${type} ${position}`), [
    'to both', `gap ${formatPosition(at('new', 7))}`, 'new 8', 'new 9'
  ])
  t.end()
})
