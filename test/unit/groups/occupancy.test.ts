import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import type { PresenceChange } from '../../../lib/backplane/backplane.ts'
import { deferred } from '../../../lib/deadline.ts'
import { WebsocketGroupsError } from '../../../lib/errors.ts'
import { Occupancy } from '../../../lib/groups/occupancy.ts'
import { BoundedLog } from '../../../lib/logging.ts'
import { silentLog } from '../../helpers/loggers.ts'

t.test('a change is compared at once, however soon it comes after an earlier comparison', async t => {
  for (let microtasks = 0; microtasks < 20; microtasks++) {
    const compared: string[] = []
    const answer = deferred<readonly PresenceChange[]>()
    const backplane = {
      syncUser: async () => 0,
      settle: async (_kind: unknown, names: readonly string[] = []) => {
        compared.push(...names)
        return await answer.promise
      }
    }
    const occupancy = new Occupancy(backplane, () => [], { onOccupied () {} }, silentLog, new BoundedLog())
    occupancy.changed('group', 'first')
    await setImmediate()
    answer.resolve([])
    for (let n = 0; n < microtasks; n++) await null
    occupancy.changed('group', 'second')
    await setImmediate()
    t.strictSame(compared, ['first', 'second'], `${microtasks} microtasks after the answer`)
  }
})

/** A backplane that is out, and for which `went` has gone meanwhile and `came` has come. It notes what it is asked. */
function cutOff () {
  const here = new Set(['stayed', 'came'])
  const recorded = new Set(['stayed', 'went'])
  const compared: string[] = []
  const synced: string[] = []
  const backplane = {
    out: true,
    syncUser: async (name: string) => {
      synced.push(name)
      if (backplane.out) throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE')
      return 0
    },
    settle: async (_kind: unknown, names: readonly string[] = [...recorded]) => {
      if (backplane.out) throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE')
      compared.push(...names)
      const changed = names.filter(name => here.has(name) !== recorded.has(name))
      for (const name of changed) if (!recorded.delete(name)) recorded.add(name)
      return changed.map(name => ({ name, present: here.has(name) }))
    }
  }
  return { backplane, here, compared, synced }
}

t.test('groups that clients make up in an outage are not remembered, and no change is lost', async t => {
  const { backplane, here, compared } = cutOff()
  const told: string[] = []
  const hooks = { onOccupied: (name: string) => { told.push(`+${name}`) }, onVacated: (name: string) => { told.push(`-${name}`) } }
  const occupancy = new Occupancy(backplane, () => here, hooks, silentLog, new BoundedLog())
  for (const name of ['went', 'came']) occupancy.changed('group', name)
  await setImmediate()
  for (let n = 0; n < 1_000; n++) {
    occupancy.changed('group', `made up ${n}`)
    if (n % 100 === 0) await setImmediate()
  }
  t.strictSame(told, [])
  backplane.out = false
  occupancy.recheck()
  await setImmediate()
  await occupancy.close()
  t.strictSame(told.sort(), ['+came', '-went'])
  t.strictSame([...new Set(compared)].sort(), ['came', 'stayed', 'went'], 'nothing else was remembered')
})

t.test('users that come and go in an outage are not remembered, the backplane is told of each, and no change is lost', async t => {
  const { backplane, here, compared, synced } = cutOff()
  const told: string[] = []
  const hooks = { onUserOnline: (name: string) => { told.push(`+${name}`) }, onUserOffline: (name: string) => { told.push(`-${name}`) } }
  const occupancy = new Occupancy(backplane, () => here, hooks, silentLog, new BoundedLog())
  occupancy.changed('user', 'went')
  await setImmediate()
  for (let n = 0; n < 1_000; n++) {
    occupancy.changed('user', `passing ${n}`)
    if (n % 100 === 0) await setImmediate()
  }
  t.equal(new Set(synced.splice(0)).size, 1_001)
  backplane.out = false
  occupancy.recheck()
  await setImmediate()
  t.strictSame(told.splice(0).sort(), ['+came', '-went'])
  t.strictSame([...new Set(compared)].sort(), ['came', 'stayed', 'went'], 'nothing else was remembered')
  here.add('later')
  occupancy.changed('user', 'later')
  await setImmediate()
  t.strictSame(told, ['+later'], 'from then on at once')
  await occupancy.close()
})
