import { setTimeout as sleep } from 'node:timers/promises'
import type { Name } from '../systems/system.ts'
import { LoadGenerator, readers, type Members } from './load-generator.ts'
import { cpuUs, rssBytes } from './proc.ts'
import type { Plan, Sent } from './publisher.ts'
import type { Rig, RigOptions } from './rig.ts'
import type { Run } from './runs.ts'
import { startRig } from './start.ts'
import { until } from './until.ts'

interface Conditions extends Members, Plan, Required<Omit<RigOptions, 'steadyMemory'>> {
  /** How long it counts. */
  readonly seconds: number
  /** So many messages go to other clients first, for code that runs once a message: V8 compiles it after some thousand calls. @default 0 */
  readonly warmUp?: number
}

const warmUpMs = 1_500
const warmUpPerSecond = 2_000
/** What has not come so long after the last message was sent is missing. */
const drainMs = 15_000
/** A system that delivers less of what is published (in percent) is overloaded: waiting for all of it would take minutes. */
const keepsUp = 95
/** An instance that is so late with an answer is not asked again. */
const patienceMs = 5_000

/** One run: publishes at a rate, and counts for some seconds in the middle of it. */
export async function measure (name: Name, conditions: Conditions): Promise<Run> {
  const rig = await startRig(name, conditions)
  try {
    await warmUp(rig, conditions)
    await rig.open(conditions)
    const told = await answers(rig)
    await rig.publish(conditions)
    await sleep(warmUpMs)
    const before = await reading(rig)
    await rig.load.start()
    await sleep(conditions.seconds * 1_000)
    const [after, window] = await Promise.all([reading(rig), rig.load.mark()])
    const rss = sum(rig.pids.slice(0, conditions.instances).map(rssBytes))
    const sent = await rig.stop()
    const receivers = conditions.clients - (conditions.slow ?? 0)
    const messages = after.sent - before.sent
    const keptUp = window.delivered / (window.us / 1e6 * conditions.perSecond * receivers / conditions.groups) * 100
    const due = keptUp >= keepsUp ? await drain(rig, conditions, sent) : undefined
    const arrived = await rig.load.report()
    const tells = await answers(rig)
    const share = (us: number): number => us / window.us * 100
    const bystanders = after.servers.length - conditions.instances
    const busy = (values: readonly number[]): number => sum(values.slice(0, conditions.instances))
    const idle = (values: readonly number[]): number => sum(values.slice(conditions.instances))
    const used = {
      servers: busy(after.servers) - busy(before.servers),
      redis: after.redis - before.redis,
      publisher: after.publisher - before.publisher
    }
    return {
      figures: {
        publishedPerSecond: messages / window.us * 1e6,
        deliveredPerSecond: window.delivered / window.us * 1e6,
        keptUp,
        p50Ms: arrived.ages.p50 / 1e3,
        p99Ms: arrived.ages.p99 / 1e3,
        maxMs: arrived.ages.max / 1e3,
        serverUs: used.servers / window.delivered,
        redisUs: used.redis / window.delivered,
        redisUsPerMessage: used.redis / messages,
        publisherUsPerMessage: used.publisher / messages,
        serverCpu: share(used.servers),
        redisCpu: share(used.redis),
        publisherCpu: share(used.publisher),
        loadCpu: share(window.cpuUs),
        loadLongestTurnMs: window.longestTurnUs / 1e3,
        deliveriesPerRead: window.delivered / window.reads,
        lagP99Ms: Math.max(0, ...tells.lags.map(({ p99 }) => p99)),
        lagMaxMs: Math.max(0, ...tells.lags.map(({ max }) => max)),
        rssMb: rss / 1e6,
        ...(due === undefined ? {} : { missing: due - arrived.delivered }),
        doubled: arrived.doubled,
        outOfOrder: arrived.outOfOrder,
        misled: arrived.misled,
        broken: arrived.broken,
        slowBroken: arrived.slowBroken,
        ...(conditions.slow === undefined ? {} : { slowKept: await rig.connections() - receivers }),
        refused: sent.refused,
        ...(bystanders === 0
          ? {}
          : {
              ...(tells.fromRedis.some(bytes => bytes < 0)
                ? {}
                : { wasteBytes: (idle(tells.fromRedis) - idle(told.fromRedis)) / sent.total / bystanders }),
              wasteUs: (idle(after.servers) - idle(before.servers)) / messages / bystanders
            })
      },
      buckets: arrived.ages.buckets,
      ...(sent.firstRefusal === undefined ? {} : { firstRefusal: sent.firstRefusal })
    }
  } finally {
    await rig.close()
  }
}

async function warmUp (rig: Rig, { warmUp: messages = 0, ...conditions }: Conditions): Promise<void> {
  // The floor has no Redis, and is compiled.
  if (messages === 0 || rig.redis === undefined) return
  const load = new LoadGenerator()
  await rig.open(conditions, load)
  await rig.publish({ ...conditions, perSecond: warmUpPerSecond })
  await until(async () => await rig.sent() >= messages, messages / warmUpPerSecond * 2_000, 50)
  await rig.stop()
  await load.end()
  await until(async () => await rig.connections() === 0, drainMs, 50)
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)

/** What does not need the instances, which may be too busy to answer. */
async function reading (rig: Rig) {
  const sent = await rig.sent()
  const servers = rig.pids.map(cpuUs)
  const redis = rig.redisPid === undefined ? 0 : cpuUs(rig.redisPid)
  const publisher = rig.publisherPid === undefined ? 0 : cpuUs(rig.publisherPid)
  return { sent, servers, redis, publisher }
}

async function answers (rig: Rig) {
  const late = sleep(patienceMs, { lags: [{ p99: patienceMs, max: patienceMs }], fromRedis: [] }, { ref: false })
  return await Promise.race([late, Promise.all([rig.lags(), rig.fromRedis()]).then(([lags, fromRedis]) => ({ lags, fromRedis }))])
}

/** Waits for what is under way; resolves with how many deliveries are due in all. */
async function drain (rig: Rig, members: Members, sent: Sent): Promise<number> {
  const due = sum(readers(members).map((count, group) => count * (sent.groups[group] ?? 0)))
  let latest = -1
  let since = performance.now()
  await until(async () => {
    const delivered = await rig.load.delivered()
    if (delivered !== latest) since = performance.now()
    latest = delivered
    return delivered >= due || performance.now() - since > 3_000
  }, drainMs, 50)
  return due
}
