import t from 'tap'
import { memoryCluster } from '../../lib/backplane/memory/index.ts'
import { backplaneContract } from './suite.ts'

backplaneContract({
  name: 'memory',
  test: async (name, run) => await t.test(name, run),
  create: () => memoryCluster()
})
