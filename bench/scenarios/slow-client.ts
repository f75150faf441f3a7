import type { MeasureOptions } from '../options.ts'
import { measure } from '../rig/measure.ts'
import { perform } from '../rig/runs.ts'
import type { Measured } from '../results.ts'
import { groupNames } from '../systems/system.ts'

/** Some members of a busy group never read: what do the others feel, and what does the server keep for those? */
export async function slowClient ({ systems, runs, number, numbers }: MeasureOptions): Promise<Measured> {
  const clients = number('members', 100)
  const perSecond = number('rate', 1_000)
  const bytes = number('bytes', 4_096)
  const seconds = number('seconds', 15)
  const cells = await perform({
    systems: systems(groupNames),
    conditions: numbers('slow', [0, 1, 10]).map(slow => ({ slow })),
    runs,
    run: async (system, { slow }) =>
      await measure(system, {
        clients: clients + slow, groups: 1, slow, placement: 'spread', instances: 1, bystanders: 0, perSecond, bytes, binary: false, seconds
      })
  })
  return {
    title: `one group, ${clients} members that read and some that never do, ${perSecond} messages/s of ${bytes} bytes, ${seconds} s`, cells
  }
}
