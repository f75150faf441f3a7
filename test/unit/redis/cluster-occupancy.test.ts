import t from 'tap'
import { ClusterOccupancy } from '../../../lib/backplane/redis/cluster-occupancy.ts'
import type { ClusterWriter } from '../../../lib/backplane/redis/cluster-writer.ts'
import { WebsocketGroupsError } from '../../../lib/errors.ts'

t.test('names of a partition that is out are asked for later, of as many as are remembered', async t => {
  let out = true
  const asked: string[] = []
  const stored: number[] = []
  const settle = async (partition: number, names: readonly string[] = []): Promise<[]> => {
    if (out && partition === 1) throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE')
    asked.push(...names)
    return []
  }
  const writer = {
    partitions: 2,
    partitionOf: ({ name }: { readonly name: string }) => name.startsWith('out') ? 1 : 0,
    occupancyOf: (partition: number) => ({ settle: async (_kind: string, names?: readonly string[]) => await settle(partition, names) })
  } as unknown as ClusterWriter
  const occupancy = new ClusterOccupancy(async partition => {
    if (out && partition === 1) throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE')
    stored.push(partition)
  })
  for (let call = 0; call < 3; call++) {
    await occupancy.settle(writer, 'user', ['in', ...Array.from({ length: 5_000 }, (_, n) => `out ${call} ${n}`)])
  }
  t.strictSame(asked.splice(0), ['in', 'in', 'in'])
  out = false
  await occupancy.settle(writer, 'user', undefined)
  t.equal(asked.length, 10_000)
  t.strictSame(stored, [0, 0, 0, 0, 1], 'after the counts of its users')
  t.ok(asked.includes('out 2 0'), 'the latest')
  await occupancy.settle(writer, 'user', [])
  t.equal(asked.length, 10_000, 'once')
})
