// One instance of the chaos test, in a process of its own: it follows all groups, publishes, and reports what it was given.
import type { Envelope, GapReason, LogPosition } from '../../../lib/backplane/backplane.ts'
import { logStart } from '../../../lib/backplane/position.ts'
import { messageEnvelope } from '../../helpers/envelopes.ts'
import { EmptyInstance, redisBackplane } from '../../helpers/local-instance.ts'
import type { Assignment, Order, Report } from './events.ts'
import { Random } from './random.ts'

const tickMs = 10
const maxUnderWay = 3_000
const { url, groups, policy, seed } = JSON.parse(process.argv[2] ?? '{}') as Assignment
const random = new Random(seed)
const indexes = new Map(groups.map(({ name }, index) => [name, index]))
const numbers = groups.map(() => 0)
const reports: Report[] = []
let rate = 0
let due = 0
let underWay = 0
let sequence = 0

function at ({ epoch, offset, nonce }: LogPosition): [epoch: string, offset: number, nonce: number] {
  return [Buffer.from(epoch, 'latin1').toString('hex'), offset, nonce]
}

const local = new class extends EmptyInstance {
  override deliver ({ position, target, payload, repeated }: Envelope): void {
    if (position === undefined) return
    const text = payload.toString('latin1', 0, payload.indexOf(' '))
    reports.push([repeated === undefined ? 'got' : 'repeated', indexes.get(target.name) ?? -1, ...at(position), text])
  }

  override gap (group: string, reason: GapReason, position: LogPosition): void {
    reports.push(['gap', indexes.get(group) ?? -1, reason, ...at(position)])
  }

  override logged (): boolean { return true }
}()

const backplane = redisBackplane({ redis: url, bootTimeoutMs: 20_000, lingerMs: 1_000, whenDown: policy })

async function publish (index: number): Promise<void> {
  const group = groups[index]
  if (group === undefined) return
  const id = `${local.instanceId}/${index}/${numbers[index]}`
  numbers[index] = (numbers[index] ?? 0) + 1
  underWay++
  try {
    const { positions, queued } =
      await backplane.append(
        [{ group: group.name, log: { maxMessages: group.keep, maxBytes: 1_073_741_824, ttlMs: 300_000 } }],
        messageEnvelope(`${id} ${'x'.repeat(random.between(1, 200))}`, { origin: local.instanceId, sequence: ++sequence })
      )
    reports.push(['stored', index, ...at(positions.get(group.name) ?? logStart), id, queued])
  } catch (error) {
    reports.push(['failed', (error as { code?: string }).code ?? String(error), id])
  } finally {
    underWay--
    if (rate === 0 && underWay === 0) reports.push(['idle'])
  }
}

process.on('message', (order: Order) => {
  if ('stop' in order) {
    void backplane.close().then(() => process.exit(0))
    return
  }
  rate = order.publish
  due = 0
  if (rate === 0 && underWay === 0) reports.push(['idle'])
})
process.on('disconnect', () => process.exit(1))

await backplane.start(local)
await backplane.subscribe({ kind: 'instance', name: local.instanceId })
for (const [index, { name }] of groups.entries()) {
  while (backplane.position(name) === undefined) {
    await backplane.subscribe({ kind: 'group', name }).catch(async () => await new Promise(resolve => setTimeout(resolve, 50)))
  }
  // What came while the others were subscribed comes after this.
  const position = backplane.position(name)
  if (position !== undefined && !reports.some(([kind, group]) => kind === 'got' && group === index)) {
    reports.push(['open', index, ...at(position)])
  }
}

setInterval(() => {
  due += rate * tickMs / 1000
  while (due >= 1 && underWay < maxUnderWay) {
    // Several at once into one group: they share calls.
    const index = random.between(0, groups.length - 1)
    for (let burst = random.between(1, 6); burst > 0; burst--, due--) void publish(index)
  }
  if (reports.length > 0) process.send?.(reports.splice(0))
}, tickMs)
process.send?.([])
