import t from 'tap'
import type { Envelope, LogPosition, Target } from '../../../lib/backplane/backplane.ts'
import { formatPosition } from '../../../lib/backplane/position.ts'
import { Hub } from '../../../lib/hub/hub.ts'
import type { LocalMember } from '../../../lib/hub/local-member.ts'
import { messageEnvelope } from '../../helpers/envelopes.ts'
import { fakeConnection, member, type FakeConnection } from '../../helpers/fakes.ts'

const group = (name: string): Target => ({ kind: 'group', name })

let sequence = 0
function envelope (text: string, target: Target, more: Partial<Envelope> = {}): Envelope {
  return messageEnvelope(text, { origin: 'o', sequence: ++sequence, target, ...more })
}

function hubOf (...connections: FakeConnection[]): Hub {
  const hub = new Hub()
  for (const connection of connections) hub.add(connection)
  return hub
}

t.test('the last connection of a user and of a group is told apart from the others', async (t) => {
  const [a, b, anonymous] = [fakeConnection('a', 'ann'), fakeConnection('b', 'ann'), fakeConnection('c')]
  const hub = hubOf(a, b, anonymous)
  t.strictSame(hub.connectionsOf('ann'), [a, b])
  for (const one of [a, b]) hub.join(one, 'g', member(one))
  t.equal(hub.has('g'), true)
  t.equal(hub.leave(a, 'g')?.connection, a)
  t.equal(hub.leave(a, 'g'), undefined)
  t.equal(hub.has('g'), true)
  t.equal(hub.leave(b, 'g')?.connection, b)
  t.equal(hub.leave(b, 'g'), undefined)
  t.strictSame([hub.has('g'), a.groups, b.groups], [false, [], []])
  t.strictSame([hub.remove(a), hub.remove(a), hub.remove(anonymous), hub.remove(b)], [false, false, false, true])
  t.strictSame([hub.connectionsOf('ann'), hub.groupTotal(), hub.connections.size], [[], 0, 0])
})

t.test('a gap is told once to each, also to one that leaves meanwhile and joins anew', async (t) => {
  const [again, leaver, other] = [fakeConnection('a'), fakeConnection('b'), fakeConnection('c')]
  const hub = hubOf(again, leaver, other)
  for (const one of [again, other, leaver]) hub.join(one, 'g', member(one))
  const told: string[] = []
  again.gapped = () => {
    if (told.push('a') > 10) throw new Error('told without end')
    hub.leave(leaver, 'g')
    hub.leave(again, 'g')
    hub.join(again, 'g', member(again))
  }
  hub.announceGap('g', { reason: 'trimmed', position: { epoch: 'e', offset: 5, nonce: 1 }, epoch: 'e' })
  t.strictSame(told, ['a'])
  t.strictSame([other.written, leaver.written], [['gap: trimmed in g'], []])
})

t.test('the tables answer what the backplane asks of them', async (t) => {
  const [a, b] = [fakeConnection('a'), fakeConnection('b')]
  const hub = hubOf(a, b)
  hub.join(a, 'g', member(a))
  hub.join(a, 'h', member(a))
  hub.join(b, 'g', member(b))
  t.strictSame([...hub.groups()], ['g', 'h'])
  t.strictSame([...hub.memberIds('g')], ['a', 'b'])
  t.strictSame([...hub.memberIds('nowhere')], [])
  t.strictSame(hub.members('g'), [member(a), member(b)])
  t.strictSame(hub.member('h', 'a'), member(a))
  t.strictSame([hub.member('h', 'b'), hub.member('g', 'nobody')], [undefined, undefined])
})

t.test('recipients are counted once each, without those excepted', async (t) => {
  const [a, b, c] = [fakeConnection('a', 'ann'), fakeConnection('b', 'ann'), fakeConnection('c')]
  const hub = hubOf(a, b, c)
  for (const one of [a, b]) hub.join(one, 'g', member(one))
  for (const one of [b, c]) hub.join(one, 'h', member(one))
  const count = (targets: Target[], except: string[] = []): number => hub.countRecipients(targets, { except })
  t.equal(count([group('g')]), 2)
  t.equal(count([group('g'), group('h')]), 3)
  t.equal(count([group('g'), group('h')], ['b', 'b', 'nobody']), 2)
  t.equal(count([group('g')], ['c']), 2, 'an exception that is no member changes nothing')
  t.equal(count([{ kind: 'user', name: 'ann' }]), 2)
  t.equal(count([{ kind: 'all', name: '' }]), 3)
  t.equal(count([{ kind: 'all', name: '' }], ['a']), 2)
  t.equal(count([{ kind: 'instance', name: 'x' }]), 0)
  t.equal(count([]), 0)
})

t.test('copies of a shared message reach a connection once, and one message after another', async (t) => {
  const [a, b] = [fakeConnection('a'), fakeConnection('b')]
  const hub = hubOf(a, b)
  for (const name of ['g', 'h']) hub.join(a, name, member(a))
  hub.join(b, 'h', member(b))
  for (const [text, origin] of [['1', 'x'], ['2', 'x'], ['2 as well', 'y']] as const) {
    const shared = { shared: true, origin, sequence: text === '1' ? 1 : 2 }
    t.equal(hub.deliver(envelope(text, group('g'), shared)), 1)
    t.equal(hub.deliver(envelope(text, group('h'), shared)), 1)
    t.equal(hub.deliver(envelope(text, group('nowhere'), shared)), 0)
  }
  t.strictSame(a.written, ['1', '2', '2 as well'])
  t.strictSame(b.written, ['1', '2', '2 as well'])
  hub.deliver(envelope('not shared', group('g')))
  hub.deliver(envelope('not shared', group('h')))
  t.strictSame(a.written.slice(3), ['not shared', 'not shared'])
})

t.test('copies of a shared message reach a connection once, whatever comes between them', async (t) => {
  const a = fakeConnection('a')
  const hub = hubOf(a)
  for (const name of ['g', 'h']) hub.join(a, name, member(a))
  const position = { epoch: 'e', offset: 1, nonce: 1 }
  for (const [first, second] of [[{}, {}], [{ position }, { position }], [{ position }, {}], [{}, { position }]]) {
    a.written.length = 0
    const shared = { shared: true, sequence: ++sequence }
    hub.deliver(envelope('both', group('g'), { ...shared, ...first }))
    for (let n = 0; n < 100; n++) hub.deliver(envelope('between', group('h'), { shared: true }))
    t.equal(hub.deliver(envelope('both', group('h'), { ...shared, ...second })), 0)
    t.equal(a.written.filter(text => text === 'both').length, 1)
  }
})

t.test('a message to several groups is not lost with the one that keeps it back, and not given again out of its log', async (t) => {
  const a = fakeConnection('a')
  const hub = hubOf(a)
  const [inG, inH] = ['g', 'h'].map(name => hub.join(a, name, member(a))) as [LocalMember, LocalMember]
  const copy = (name: string, offset: number): Envelope => envelope(
    'both', group(name), { shared: true, sequence: 1_000_000, position: { epoch: 'e', offset, nonce: 1 } }
  )
  inG.startHold()
  hub.deliver(copy('g', 1))
  t.equal(hub.deliver(copy('h', 1)), 1)
  t.strictSame(a.written, ['both'])
  t.strictSame(inG.releaseHold(undefined), [copy('g', 1)])
  hub.replay(inG, copy('g', 1))
  hub.replay(inH, copy('h', 1))
  t.strictSame(a.written, ['both'])
})

t.test('a replay ran ahead of the instance while the log went on along another branch: nothing twice, nothing lost', async (t) => {
  /** `fresh`: of the branch that the log went on along after 3. */
  const message = (offset: number, fresh: boolean): Envelope => {
    const position = { epoch: 'epoch-1.', offset, nonce: fresh ? 100 + offset : offset }
    return envelope(`${offset}${fresh ? '\'' : ''}`, group('g'), { position })
  }
  const fork = { reason: 'rewound' as const, position: { epoch: 'epoch-1.', offset: 3, nonce: 3 }, epoch: 'epoch-1.' }
  for (const fresh of [true, false]) {
    const a = fakeConnection('a')
    const hub = hubOf(a)
    const inG = hub.join(a, 'g', member(a))
    const holdback = inG.startHold()
    for (const one of [message(3, false), message(4, fresh), message(5, fresh)]) {
      hub.replay(inG, one)
      holdback.gave(one.position as LogPosition)
    }
    // The instance stands at 2, and was told nothing of the fork yet.
    inG.releaseHold({ position: message(5, fresh).position as LogPosition, epoch: 'epoch-1.', told: false })
    hub.deliver(message(3, false))
    hub.announceGap('g', fork)
    for (const offset of [4, 5, 6, 7]) hub.deliver(message(offset, true))
    t.equal(inG.holdback, undefined)
    const expected = fresh
      ? ['3', "4'", "5'", 'gap: rewound in g', "6'", "7'"]
      : ['3', '4', '5', 'gap: rewound in g', "4'", "5'", "6'", "7'"]
    t.strictSame(a.written, expected, fresh ? 'the replay was of the new branch' : 'the replay was of the lost branch')
  }
})

t.test('a client that is ahead of this instance is not told of places that it is past', async (t) => {
  const a = fakeConnection('a', undefined, true)
  const hub = hubOf(a)
  const [inG, inH] = ['g', 'h'].map(name => hub.join(a, name, member(a))) as [LocalMember, LocalMember]
  const at = (offset: number): LogPosition => ({ epoch: 'e', offset, nonce: 1 })
  // It resumed both groups from another instance, up to their third messages, and this one still repairs what it missed.
  for (const one of [inG, inH]) {
    one.startHold()
    one.releaseHold({ position: at(3), epoch: 'e', told: false })
  }
  const copy = (name: string, n: number, offset: number): Envelope => envelope(
    'both', group(name), { shared: true, sequence: 2_000_000 + n, position: at(offset) }
  )
  for (let n = 1; n <= 3; n++) for (const name of ['g', 'h']) t.equal(hub.deliver(copy(name, n, n)), 0)
  t.strictSame(a.written, [])
  hub.deliver(copy('g', 4, 4))
  hub.deliver(copy('h', 4, 4))
  t.strictSame(a.written.map(text => JSON.parse(text) as object), [
    { type: 'message', group: 'g', position: formatPosition(at(4)), copy: 'o:2000004', data: 'both' },
    { type: 'position', group: 'h', position: formatPosition(at(4)) }
  ])
})

t.test('a client that is in the next log already is given nothing of the one that this instance still delivers', async (t) => {
  const a = fakeConnection('a', undefined, true)
  const hub = hubOf(a)
  const one = hub.join(a, 'g', member(a)) as LocalMember
  const at = (epoch: string, offset: number): LogPosition => ({ epoch, offset, nonce: 1 })
  const deliver = (epoch: string, offset: number, more: Partial<Envelope> = {}): number =>
    hub.deliver(envelope(`${epoch} ${offset}`, group('g'), { position: at(epoch, offset), ...more }))
  one.startHold()
  one.releaseHold({ position: at('new', 4), epoch: 'new', told: false, gone: 'old' })
  deliver('old', 707)
  deliver('old', 708, { except: ['a'] })
  hub.announceGap('g', { reason: 'epoch', position: at('', 0), epoch: 'new' })
  for (let offset = 1; offset <= 5; offset++) deliver('new', offset)
  t.strictSame(a.written.map(text => JSON.parse(text) as object), [
    { type: 'message', group: 'g', position: formatPosition(at('new', 5)), data: 'new 5' }
  ])
})

t.test('a client that is in the next log already is told of a second loss, and not of the first one again', async (t) => {
  const at = (epoch: string, offset: number): LogPosition => ({ epoch, offset, nonce: 1 })
  const empty = { reason: 'epoch', position: at('', 0), epoch: '' } as const
  const told = (next: string, end: LogPosition): string[] => {
    const a = fakeConnection('a', undefined, true)
    const hub = hubOf(a)
    const one = hub.join(a, 'g', member(a)) as LocalMember
    one.startHold()
    one.releaseHold({ position: end, epoch: end.epoch, told: true, gone: 'old' })
    hub.deliver(envelope('late', group('g'), { position: at('old', 708) }))
    hub.announceGap('g', empty)
    for (let offset = 1; offset <= 3; offset++) hub.deliver(envelope(`${next} ${offset}`, group('g'), { position: at(next, offset) }))
    return a.written.map(text => JSON.parse(text) as { type: string, data?: string }).map(({ type, data }) => data ?? type)
  }
  t.strictSame(told('new', at('new', 2)), ['new 3'])
  t.strictSame(told('third', at('new', 2)), ['gap', 'third 1', 'third 2', 'third 3'])
  t.strictSame(told('new', at('', 0)), ['new 1', 'new 2', 'new 3'], 'the log was empty when the client came')
})

t.test('a client that comes back ahead of this instance gets nothing twice that went to a group without a log, too', async (t) => {
  const a = fakeConnection('a', undefined, true)
  const hub = hubOf(a)
  const one = hub.join(a, 'g', member(a)) as LocalMember
  hub.join(a, 'v', member(a))
  one.startHold()
  one.releaseHold({ position: { epoch: 'e', offset: 5, nonce: 1 }, epoch: 'e', told: false })
  for (const offset of [5, 6]) {
    hub.deliver(envelope(`e ${offset}`, group('v'), { shared: true, places: [{ group: 'g', epoch: 'e', offset }] }))
  }
  t.strictSame(a.written.map(text => (JSON.parse(text) as { data: string }).data), ['e 6'])
})

t.test('who joined after a message came that waited for another log gets it out of that log alone', async (t) => {
  const [a, b] = [fakeConnection('a'), fakeConnection('b')]
  const hub = hubOf(a, b)
  for (const [connection, joinedAt] of [[a, 1_000], [b, 1_001]] as const) {
    for (const name of ['g', 'v']) hub.join(connection, name, { ...member(connection), joinedAt })
  }
  const shared = { shared: true, sequence: ++sequence }
  t.equal(hub.deliver(envelope('both', group('v'), { ...shared, heldSince: 1_000 })), 1)
  t.strictSame([a.written, b.written], [['both'], []])
  t.equal(hub.deliver(envelope('both', group('g'), { ...shared, position: { epoch: 'e', offset: 1, nonce: 1 } })), 1)
  t.strictSame([a.written, b.written], [['both'], ['both']])
})

t.test('who leaves a group during its replay holds nothing back any more', async (t) => {
  const a = fakeConnection('a')
  const hub = hubOf(a)
  const first = hub.join(a, 'g', member(a))
  const holdback = first.startHold()
  hub.deliver(envelope('held', group('g')))
  t.strictSame([a.written, holdback.waiting.length], [[], 1])
  t.equal(hub.leave(a, 'g'), first)
  t.equal(first.holdback, undefined)
  const second = hub.join(a, 'g', member(a))
  t.not(second, first)
  hub.deliver(envelope('live', group('g')))
  t.strictSame(a.written, ['live'])
})

t.test('a delivery leaves out the excepted and does not count the closed', async (t) => {
  const [a, b, c] = [fakeConnection('a', 'ann'), fakeConnection('b', 'ann'), fakeConnection('c')]
  const hub = hubOf(a, b, c)
  Object.assign(b, { closed: true })
  t.equal(hub.deliver(envelope('all', { kind: 'all', name: '' }, { except: ['c', 'nobody'] })), 1)
  t.equal(hub.deliver(envelope('user', { kind: 'user', name: 'ann' })), 1)
  t.equal(hub.deliver(envelope('instance', { kind: 'instance', name: 'x' })), 0)
  t.strictSame([a.written, b.written, c.written], [['all', 'user'], [], []])
})

t.test('a delivery without the backplane is once to everyone behind the targets, but not to those who have it', async (t) => {
  const [a, b, c] = [fakeConnection('a'), fakeConnection('b'), fakeConnection('c')]
  const hub = hubOf(a, b, c)
  for (const one of [a, b]) hub.join(one, 'g', member(one))
  for (const one of [b, c]) hub.join(one, 'h', member(one))
  const targets = [group('g'), group('h')]
  t.equal(hub.deliverExcept(envelope('both', group('g'), { shared: true }), targets, []), 3)
  t.equal(hub.deliverExcept(envelope('h alone', group('g'), { shared: true }), targets, [group('g')]), 1)
  t.equal(hub.deliverExcept(envelope('excepted', group('g'), { except: ['b'] }), targets, []), 2)
  t.strictSame([a.written, b.written, c.written], [['both', 'excepted'], ['both'], ['both', 'h alone', 'excepted']])
})

t.test('without the backplane, too, a client of the framed protocol is told the group that it is in', async (t) => {
  const [a, b] = [fakeConnection('a', undefined, true), fakeConnection('b', undefined, true)]
  const hub = hubOf(a, b)
  hub.join(a, 'g', member(a))
  hub.join(b, 'h', member(b))
  hub.deliverExcept(envelope('both', group('g'), { shared: true }), [group('g'), group('h')], [])
  t.match(
    [a, b].map(({ written }) => written.map(text => JSON.parse(text) as unknown)),
    [[{ group: 'g', data: 'both' }], [{ group: 'h', data: 'both' }]]
  )
})

t.test('without the backplane, too, what a replay holds back waits for its end', async (t) => {
  const a = fakeConnection('a')
  const hub = hubOf(a)
  const [inG, inH] = ['g', 'h'].map(name => hub.join(a, name, member(a))) as [LocalMember, LocalMember]
  for (const one of [inG, inH]) one.startHold()
  const both = envelope('both', group('g'), { shared: true })
  t.equal(hub.deliverExcept(both, [group('g'), group('h')], []), 0)
  for (const one of [inG, inH]) for (const news of one.releaseHold(undefined)) if ('payload' in news) hub.replay(one, news)
  t.strictSame(a.written, ['both'])
})

t.test('a message that stands twice in one log comes once, also to a client that joined after the log before it was lost', async (t) => {
  const at = (offset: number): LogPosition => ({ epoch: 'e', offset, nonce: 1 })
  const a = fakeConnection('a', undefined, true)
  const hub = hubOf(a)
  hub.announceGap('g', { reason: 'epoch', position: at(0), epoch: 'e' })
  hub.join(a, 'g', member(a))
  hub.deliver(envelope('once', group('g'), { position: at(10) }))
  hub.deliver(envelope('once', group('g'), { position: at(14), repeated: at(10) }))
  t.strictSame(a.written.map(text => JSON.parse(text) as object), [
    { type: 'message', group: 'g', position: formatPosition(at(10)), data: 'once' },
    { type: 'position', group: 'g', position: formatPosition(at(14)) }
  ])
})
