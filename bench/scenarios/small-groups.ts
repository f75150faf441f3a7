import type { MeasureOptions } from '../options.ts'
import { measure } from '../rig/measure.ts'
import { perform } from '../rig/runs.ts'
import type { Measured } from '../results.ts'
import { groupNames } from '../systems/system.ts'

/** Many small groups over several instances, and one more instance that has no member of any: what reaches it is waste. */
export async function smallGroups ({ systems, runs, number, numbers, text }: MeasureOptions): Promise<Measured> {
  const perGroup = number('members', 10)
  const perSecond = number('rate', 2_000)
  const bytes = number('bytes', 120)
  const seconds = number('seconds', 10)
  const placement = text('placement', 'spread') === 'together' ? 'together' : 'spread'
  const standard = numbers('groups', [1_000]).flatMap(
    groups => numbers('instances', [1, 2, 4]).map(instances => ({ curve: 'instances', groups, instances }))
  )
  const curve = numbers('curve', [10, 100, 1_000]).map(groups => ({ curve: 'groups', groups, instances: 2 }))
  const cells = await perform({
    systems: systems(groupNames),
    conditions: [...standard, ...curve],
    runs,
    run: async (system, { groups, instances }) =>
      await measure(system, {
        clients: groups * perGroup, groups, slow: 0, placement, instances, bystanders: 1, perSecond, bytes, binary: false, seconds
      })
  })
  const where = placement === 'spread' ? 'over all instances' : 'on one instance each'
  return { title: `groups of ${perGroup} ${where}, ${perSecond} messages/s of ${bytes} bytes in all, ${seconds} s`, cells }
}
