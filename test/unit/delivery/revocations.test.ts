import t from 'tap'
import type { LogPage } from '../../../lib/backplane/backplane.ts'
import { deferred } from '../../../lib/deadline.ts'
import { Revocations } from '../../../lib/delivery/revocations.ts'
import { WebsocketGroupsError } from '../../../lib/errors.ts'
import { GroupLogs, maxTtlMs } from '../../../lib/options/group-logs.ts'

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

t.test('whoever is put out is remembered, also while the function logs throws', async t => {
  const kept: number[] = []
  const backplane = {
    position: () => undefined,
    history: async (): Promise<LogPage> => { throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE') },
    revoke: async (group: string, names: readonly string[], revocation: unknown, forMs: number): Promise<void> => { kept.push(forMs) }
  }
  const logs = new GroupLogs({ log: false, logs: () => { throw new Error('out of order') } })
  const revocations = new Revocations(backplane, logs, error => t.fail(String(error)))
  await revocations.add({ userId: 'ann', sessionName: undefined }, 'g', 'connection')
  await revocations.addUser('ann', 'g')
  t.strictSame(kept, [2 * maxTtlMs, 2 * maxTtlMs], 'for as long as the log may be kept')
})
