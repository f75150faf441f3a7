import t from 'tap'
import { PartitionInstance } from '../../../lib/backplane/redis/partition-instance.ts'
import { EmptyInstance } from '../../helpers/local-instance.ts'

class TracedInstance extends EmptyInstance {
  readonly spans: string[] = []

  async repairing<Result> (group: string, read: () => Promise<Result>): Promise<Result> {
    this.spans.push(group)
    return await read()
  }
}

t.test('what a partition missed is read in a span of its instance, where that traces', async t => {
  const traced = new TracedInstance()
  t.equal(await new PartitionInstance(traced, () => {}).repairing('lobby', async () => 'read'), 'read')
  t.strictSame(traced.spans, ['lobby'])
  t.equal(await new PartitionInstance(new EmptyInstance(), () => {}).repairing('lobby', async () => 'read'), 'read')
})
