// The process that publishes: publisher.ts <system> <redis URL>
import { expose } from './child.ts'
import { load, type SystemName } from '../systems/system.ts'
import { Pace } from './pace.ts'

const [, , name = 'ours', redisUrl = ''] = process.argv
const system = await load(name as SystemName)
const publisher = await system.publisher(redisUrl)

export interface Plan {
  /** In all. */
  readonly perSecond: number
  /** They take turns. */
  readonly groups: number
  readonly bytes: number
  readonly binary: boolean
  /** The same clients get more: what they count by goes on where it ended. */
  readonly more?: boolean
}

export interface Sent {
  /** To each group. */
  readonly groups: readonly number[]
  readonly total: number
  /** Calls that were rejected. */
  readonly refused: number
  readonly firstRefusal: string | undefined
}

let groups: number[] = []
let total = 0
let refused = 0
let firstRefusal: string | undefined
let pace: Pace | undefined

/** `<group> <number> <time> <filler>`: the time is of CLOCK_MONOTONIC, which all processes share. */
function message (group: number, n: number, { bytes, binary }: Plan): string | Buffer {
  const text = `${group} ${n} ${process.hrtime.bigint() / 1_000n} `.padEnd(bytes, 'x')
  return binary ? Buffer.from(text) : text
}

async function publish (plan: Plan): Promise<void> {
  const group = total++ % plan.groups
  const n = (groups[group] ?? 0) + 1
  groups[group] = n
  try {
    await publisher.publish(`room${group}`, message(group, n, plan))
  } catch (error) {
    refused++
    firstRefusal ??= String(error)
  }
}

const api = {
  start (plan: Plan): void {
    if (plan.more !== true) {
      groups = new Array<number>(plan.groups).fill(0)
      total = 0
    }
    pace = new Pace(plan.perSecond, () => { void publish(plan) })
  },
  total: (): number => total,
  stop (): Sent {
    pace?.stop()
    return { groups, total, refused, firstRefusal }
  }
}
export type PublisherApi = typeof api
expose(api)
