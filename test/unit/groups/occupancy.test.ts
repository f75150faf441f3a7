import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import type { PresenceChange } from '../../../lib/backplane/backplane.ts'
import { deferred } from '../../../lib/deadline.ts'
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
    const occupancy = new Occupancy(backplane, { onOccupied () {} }, silentLog, new BoundedLog())
    occupancy.changed('group', 'first')
    await setImmediate()
    answer.resolve([])
    for (let n = 0; n < microtasks; n++) await null
    occupancy.changed('group', 'second')
    await setImmediate()
    t.strictSame(compared, ['first', 'second'], `${microtasks} microtasks after the answer`)
  }
})
