import Fastify, { type FastifyInstance } from 'fastify'
import websocketGroups, { type Connection } from 'fastify-websocket-groups'
import { setTimeout as sleep } from 'node:timers/promises'
import type { DrillOptions } from '../options.ts'
import { startMasters, type Masters } from '../rig/masters.ts'
import { until } from '../rig/until.ts'
import type { Result, Row } from '../results.ts'

const idleMs = 10_000
/** How many instances start, or do something, at the same time. */
const together = 50

interface Member { readonly app: FastifyInstance, readonly connection: Connection }

/** What this many instances cost one Redis. */
interface Costs {
  readonly 'idle: Redis us per ping': number
  readonly 'idle: Redis ms/s': number
  readonly 'join: Redis us each': number
  /** Of the keys of memberships. */
  readonly 'join: Redis bytes each': number
  readonly 'break: Redis us per subscription': number
  readonly 'break: seconds until all are back': number
}

/**
 * What does not depend on how fast this process is: 1,000 instances in one process are late with all that they do by the clock, and their
 * wall time says nothing of Redis.
 */
const compared: ReadonlyArray<keyof Costs> = [
  'idle: Redis us per ping', 'join: Redis us each', 'join: Redis bytes each', 'break: Redis us per subscription'
]

/**
 * What few instances cost Redis for leases, joins and the way back after a break of all connections, and whether many cost as much each:
 * the arithmetic of docs/scaling.md takes that for granted. All of them run in this process, each with one client.
 */
export async function controlPlane ({ number }: DrillOptions): Promise<Result> {
  const [few, many, groupsEach] = [number('few', 100), number('instances', 1_000), number('groups', 20)]
  const costs = { few: await measure(few, groupsEach), many: await measure(many, groupsEach) }
  const rows: Row[] = (Object.keys(costs.few) as Array<keyof Costs>).map(what => ({
    what,
    [`${few} instances`]: costs.few[what],
    [`${many} instances`]: costs.many[what],
    factor: compared.includes(what) ? rounded(costs.many[what] / costs.few[what]) : '–'
  }))
  return { title: `the control plane: ${few} instances and ${many}, ${groupsEach} groups each`, rows, raw: costs }
}

/** So far. */
interface Spent { readonly us: number, readonly pings: number, readonly at: number }

async function measure (count: number, groupsEach: number): Promise<Costs> {
  const masters = await startMasters(1)
  const spent = async (): Promise<Spent> => ({ us: (await masters.cpuUs())[0] ?? 0, pings: await masters.pings(), at: performance.now() })
  const members: Member[] = []
  for (let at = 0; at < count; at += together) {
    members.push(...await Promise.all(Array.from({ length: Math.min(together, count - at) }, async () => await start(masters))))
  }
  // Each group has members on about ten instances.
  const groups = Math.ceil(count * groupsEach / 10)
  const bytesBefore = await masters.keyBytes()
  const [beforeJoins, joins] = [await spent(), count * groupsEach]
  for (let at = 0; at < members.length; at += together) {
    await Promise.all(members.slice(at, at + together).flatMap(({ app, connection }, index) => {
      return Array.from(
        { length: groupsEach }, async (_, n) => await app.registry.join(connection, `group ${((at + index) * 7 + n * 31) % groups}`)
      )
    }))
  }
  const afterJoins = await spent()
  await sleep(6_000)
  const bytes = await masters.keyBytes()
  const beforeIdle = await spent()
  await sleep(idleMs)
  const beforeBreak = await spent()
  await masters.kill('pubsub')
  await sleep(20)
  await until(async () => members.every(({ app }) => app.registry.health().status === 'up'), 120_000)
  const afterBreak = await spent()
  // All that instances do by the clock goes with their pings: what they cost tells what of a phase is not its own.
  const perPing = (beforeBreak.us - beforeIdle.us) / (beforeBreak.pings - beforeIdle.pings)
  const own = (from: Spent, to: Spent): number => to.us - from.us - perPing * (to.pings - from.pings)
  for (let at = 0; at < members.length; at += together) {
    await Promise.all(members.slice(at, at + together).map(async ({ app }) => await app.close()))
  }
  await masters.end()
  return {
    'idle: Redis us per ping': rounded(perPing),
    'idle: Redis ms/s': rounded((beforeBreak.us - beforeIdle.us) / (beforeBreak.at - beforeIdle.at)),
    'join: Redis us each': rounded(own(beforeJoins, afterJoins) / joins),
    'join: Redis bytes each': Math.round((bytes - bytesBefore) / joins),
    'break: Redis us per subscription': rounded(own(beforeBreak, afterBreak) / joins),
    'break: seconds until all are back': rounded((afterBreak.at - beforeBreak.at) / 1_000)
  }
}

async function start ({ redis }: Masters): Promise<Member> {
  const app = Fastify({ pluginTimeout: 120_000 })
  await app.register(websocketGroups, {
    redis, log: false, operationTimeoutMs: 10_000, joinTimeoutMs: 30_000, bootTimeoutMs: 60_000, limits: false
  })
  let opened: Connection | undefined
  app.get('/', { websocket: true }, app.wsHandler({ onConnect (connection) { opened = connection }, onMessage () {} }))
  await app.ready()
  await app.injectWS('/')
  await until(async () => opened !== undefined, 5_000)
  return { app, connection: opened as Connection }
}

const rounded = (value: number): number => Number(value.toFixed(2))
