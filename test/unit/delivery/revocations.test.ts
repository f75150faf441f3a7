import t from 'tap'
import type { LogPage } from '../../../lib/backplane/backplane.ts'
import { deferred } from '../../../lib/deadline.ts'
import { Revocations } from '../../../lib/delivery/revocations.ts'
import { WebsocketGroupsError } from '../../../lib/errors.ts'
import type { GroupLogs } from '../../../lib/options/group-logs.ts'

t.test('what is added by a call that outlasts the close is not tried again and again', async t => {
  const end = deferred<LogPage>()
  let calls = 0
  const backplane = {
    position: () => undefined,
    history: async () => await end.promise,
    async revoke () {
      calls++
      throw new WebsocketGroupsError('WSG_CLOSED')
    }
  }
  const logs = { has: () => true, of: () => undefined } as unknown as GroupLogs
  const revocations = new Revocations(backplane, logs, error => t.fail(String(error)))
  const adding = revocations.addUser('ann', 'g')
  revocations.close()
  end.reject(new WebsocketGroupsError('WSG_CLOSED'))
  await adding
  t.equal(calls, 0, 'the closed backplane is not asked')
})
