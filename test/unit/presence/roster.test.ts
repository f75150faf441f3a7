import t from 'tap'
import { Roster } from '../../../lib/presence/roster.ts'

const at = 1_790_000_000_000

function connection (id: string, session: string, more: object = {}): Parameters<Roster['add']>[0] {
  return { connectionId: id, instanceId: 'i', userId: 'ann', session, joinedAt: at, ...more } as Parameters<Roster['add']>[0]
}

t.test('what was set counts for newer than what another connection showed when it joined in the same millisecond', async t => {
  for (const order of [['one', 'two'], ['two', 'one']]) {
    const roster = new Roster()
    for (const id of order) roster.add(connection(id, `session ${id}`, { info: 'joined' }))
    const changed = roster.update(connection('one', 'session one', { info: 'set', infoAt: at }))
    t.match(changed, { event: 'update', member: { info: 'set', connections: 2 } }, order.join())
    t.equal(roster.add(connection('one', 'session one', { info: 'joined' })), undefined, 'an older list changes nothing')
  }
})

t.test('a full roster tells of nobody else: whoever it does not remember could not be told to have left', async t => {
  const roster = new Roster(1)
  t.match(roster.add(connection('one', 'session one')), { event: 'join' })
  const later = connection('two', 'session two', { userId: 'ben' })
  t.equal(roster.add(later), undefined)
  t.equal(roster.remove(later, true), undefined)
  t.equal(roster.remove(later, false), undefined)
  t.match(roster.add(connection('three', 'session three')), { event: 'update', member: { userId: 'ann', connections: 2 } })
  t.equal(roster.size, 1)
  roster.remove(connection('one', 'session one'), false)
  t.match(roster.remove(connection('three', 'session three'), false), { event: 'leave', member: { userId: 'ann' } })
  t.match(roster.add(later), { event: 'join', member: { userId: 'ben' } }, 'there is room again')
})
