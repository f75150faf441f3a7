import t from 'tap'
import type { LoggedEnvelope, LogPosition } from '../../../lib/backplane/backplane.ts'
import { logStart, parsePosition } from '../../../lib/backplane/position.ts'
import type { Backlog, BacklogPage } from '../../../lib/delivery/backlog.ts'
import { CatchUp } from '../../../lib/delivery/catch-up.ts'
import { GivenRanges } from '../../../lib/delivery/given-ranges.ts'
import type { LocalConnection } from '../../../lib/connection/connection.ts'
import type { Gap } from '../../../lib/hub/holdback.ts'
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
  const backlog = { lostPlace: () => undefined, returnOf: () => undefined } as unknown as Backlog
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

/** What a client is told that comes from `since`, when its instance delivers `held` before it has `page`, and new 8 and 9 later. */
function given (
  since: LogPosition, held: ReadonlyArray<LoggedEnvelope | Gap>, page: Partial<BacklogPage>,
  extra?: (hub: Hub, connection: LocalConnection) => void
): string[] {
  const connection = fakeConnection('a', undefined, true)
  const hub = new Hub()
  hub.add(connection)
  const joined = hub.join(connection, 'g', member(connection)) as LocalMember
  const last = at('new', 7)
  const position = (): LogPosition | undefined => last
  // In these tests the log `between` was there only until `new` came back.
  const returnOf = (_group: string, epoch: string): LogPosition | undefined => epoch === 'between' ? logStart : undefined
  const backlog = { lostPlace: () => undefined, returnOf } as unknown as Backlog
  const catching = { member: joined, holdback: joined.startHold() }
  const catchUp = new CatchUp(hub, { position }, backlog, new GivenRanges(hub, { position }), catching, since)
  for (const news of held) {
    if ('reason' in news) hub.announceGap('g', news)
    else hub.deliver(news)
  }
  catchUp.asking()
  catchUp.give({ before: last, messages: [], more: false, ...page })
  extra?.(hub, connection)
  for (const offset of [8, 9]) hub.deliver(logged('new', offset))
  const frames = connection.written.map(text => JSON.parse(text) as { type: string, position?: string, data?: string })
  return frames.map(({ type, position = '', data }) => data ?? `${type} ${show(position)}`)
}

function show (text: string): string {
  const { epoch, offset } = parsePosition(text) ?? logStart
  return `${epoch.replaceAll('\0', '')} ${offset}`
}

const unavailable = { recovered: false, reason: 'unavailable' } as const
const next: Gap = { reason: 'epoch', position: logStart, epoch: 'new' }

t.test('a client of another log, which cannot be read, goes on after what came before its page, and is told so once', t => {
  const copyToo = (hub: Hub, connection: LocalConnection): void => {
    // A copy for a group without a log is given all the same: the client has no other.
    hub.join(connection, 'v', member(connection))
    hub.deliver({
      ...messageEnvelope('to both', { origin: 'new', sequence: 0, target: { kind: 'group', name: 'v' } }),
      shared: true,
      places: [{ group: 'g', epoch: 'new', offset: 7 }]
    })
  }
  t.strictSame(given(at('old', 48), [logged('new', 6), logged('new', 7)], { ...unavailable, claimed: at('old', 48) }, copyToo), [
    'to both', 'gap new 7', 'new 8', 'new 9'
  ])
  t.end()
})

t.test('what was held back of the logs before the one that the client is in now is not for it', t => {
  const held = [logged('old', 23), next, ...[1, 2, 3, 4, 5, 6, 7].map(offset => logged('new', offset))]
  const messages = held.slice(2) as LoggedEnvelope[]
  const all = [...messages, logged('new', 8), logged('new', 9)].map(({ payload }) => payload.toString())
  const page = { recovered: true, before: logStart, messages, epoch: 'new' }
  t.strictSame(given(logStart, held, page), all, 'it had a position without a log, and gets the new one')
  t.strictSame(given(logStart, [logged('older', 7), { ...next, epoch: 'old' }, ...held], page), all)
  for (const since of [at('old', 6), at('other', 34)]) {
    t.strictSame(given(since, held, { ...unavailable, claimed: since }), ['gap  0', ...all], `it is in the log ${since.epoch}`)
    const empty = held.with(1, { ...next, epoch: '' })
    t.strictSame(given(since, empty, { ...unavailable, claimed: since }), ['gap  0', ...all], 'there was no log for a moment')
  }
  t.end()
})

t.test('a client is told once of a log that was there only until its own came back', t => {
  const held = [
    { ...next, epoch: 'between' }, logged('between', 1), logged('between', 2), { ...next, position: at('new', 6) }, logged('new', 7)
  ]
  const messages = [5, 6, 7].map(offset => logged('new', offset))
  const page = { recovered: true, before: at('new', 4), messages, epoch: 'new' }
  t.strictSame(given(at('new', 4), held, page), ['new 5', 'new 6', 'new 7', 'gap new 7', 'new 8', 'new 9'])
  t.strictSame(given(at('new', 4), held.slice(3), page), ['new 5', 'new 6', 'new 7', 'new 8', 'new 9'], 'nothing of it was held')
  const between = held.slice(0, 3)
  t.strictSame(given(at('new', 4), between, page), ['new 5', 'new 6', 'new 7', 'gap new 7', 'new 8', 'new 9'], 'nothing of its own was')
  t.end()
})
