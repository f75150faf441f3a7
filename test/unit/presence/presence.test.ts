import t from 'tap'
import type { FramedMember } from '../../../lib/protocol/frames.ts'
import { LocalMember } from '../../../lib/hub/local-member.ts'
import type { Member } from '../../../lib/types.ts'
import { messageEnvelope } from '../../helpers/envelopes.ts'
import { fakeConnection, fakeInstance, member, type FakeConnection } from '../../helpers/fakes.ts'
import { until } from '../../helpers/until.ts'

const elsewhere: Member = { connectionId: 'other00000.1', instanceId: 'other00000', joinedAt: 1, userId: 'cat' }

function watcher (id: string): FakeConnection {
  return Object.assign(fakeConnection(id, id, true), { presence: true })
}

t.test('who left while nobody here was told is not listed by a read that began before', async t => {
  const { presence, backplane } = fakeInstance()
  t.teardown(() => presence.close())
  const reads: Array<(members: Member[]) => void> = []
  backplane.onRead = async () => await new Promise(resolve => { reads.push(resolve) })
  presence.addRoute(true)
  const [first, second] = [watcher('ann'), watcher('bob')]
  const ann = new LocalMember(first, 'lobby', { ...member(first), userId: 'ann' })
  presence.joined(ann)
  await presence.left(ann, Promise.resolve())
  const command = JSON.stringify({ event: 'leave', member: { ...elsewhere, session: elsewhere.connectionId } })
  presence.receive(messageEnvelope('', { kind: 'presence', command }))
  presence.joined(new LocalMember(second, 'lobby', { ...member(second), userId: 'bob' }))
  reads[0]?.([elsewhere])
  await until(() => reads.length === 2)
  reads[1]?.([])
  await until(() => second.written.length > 0)
  const { members } = JSON.parse(second.written.at(-1) ?? '') as { members: FramedMember[] }
  t.strictSame(members.map(({ userId }) => userId), ['bob'])
})

t.test('a count that was asked for earlier and comes later is not told', async t => {
  const { presence, backplane } = fakeInstance()
  t.teardown(() => presence.close())
  const reads: Array<(members: Member[]) => void> = []
  backplane.onRead = async () => await new Promise(resolve => { reads.push(resolve) })
  const counting = Object.assign(fakeConnection('ann', 'ann', true), { presence: 'count' as const })
  presence.joined(new LocalMember(counting, 'lobby', member(counting)))
  const changed = (): void => presence.receive(messageEnvelope('', { kind: 'presence', command: JSON.stringify({ event: 'changed' }) }))
  changed()
  changed()
  await until(() => reads.length === 2)
  reads[1]?.([elsewhere, elsewhere])
  await until(() => counting.written.length > 0)
  reads[0]?.([elsewhere])
  changed()
  await until(() => reads.length === 3)
  t.strictSame(counting.written.map(frame => JSON.parse(frame)), [{ type: 'count', group: 'lobby', count: 2 }])
})

t.test('who comes back while its leave is still being stored is told as gone first, then as there', async t => {
  for (const presenceOption of [true, false] as const) {
    const { membership, presence, backplane, hub } = fakeInstance()
    t.teardown(() => presence.close())
    presence.addRoute(true)
    const connection = Object.assign(fakeConnection('ann.1', 'ann', presenceOption), { presence: presenceOption })
    hub.add(connection)
    await membership.join(connection, 'lobby')
    const stored: Array<() => void> = []
    backplane.onSync = async () => await new Promise(resolve => { stored.push(resolve) })
    const leaving = membership.leave(connection, 'lobby')
    backplane.onSync = async () => {}
    await membership.join(connection, 'lobby')
    for (const done of stored) done()
    await leaving
    const commands = (): string[] => backplane.published.filter(({ kind }) => kind === 'presence').map(({ command }) => command)
    const told = (): unknown[] => commands().map(command => (JSON.parse(command) as { event: unknown }).event)
    await until(() => told().length >= 3)
    t.strictSame(told(), ['join', 'leave', 'join'])
  }
})

t.test('one who came back and is closed for good before the others were told is not waited for', async t => {
  const { membership, presence, backplane, hub } = fakeInstance()
  t.teardown(() => presence.close())
  presence.addRoute(true)
  const told = (): unknown[] => backplane.published.filter(({ kind }) => kind === 'presence').map(({ command }) => {
    const { event, member } = JSON.parse(command) as { event: string, member: Member }
    return [event, member.connectionId, member.session, member.userId]
  })
  const back = (id: string): FakeConnection => Object.assign(fakeConnection(id, 'ann', true), { presence: true, sessionName: 's' })
  const [first, second, third] = [back('ann.1'), back('ann.2'), back('ann.3')]
  for (const connection of [first, second, third]) hub.add(connection)
  await membership.join(first, 'lobby')
  Object.assign(first, { closed: true, closeCode: 1012 })
  await membership.connectionClosed(first)
  const joining = (connection: FakeConnection): void => {
    hub.join(connection, 'lobby', { ...member(connection), userId: 'ann', session: 's' })
  }
  // What breaks may come back once more: the others wait already.
  joining(second)
  Object.assign(second, { closed: true, closeCode: 1006 })
  await membership.connectionClosed(second)
  t.strictSame(told(), [['join', 'ann.1', 's', 'ann'], ['away', 'ann.1', 's', 'ann']])
  joining(third)
  Object.assign(third, { closed: true, closeCode: 1000, dismissed: true })
  await membership.connectionClosed(third)
  t.strictSame(told().slice(2), [['leave', 'ann.3', 's', 'ann']])
})
