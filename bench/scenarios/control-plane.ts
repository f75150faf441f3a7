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
  readonly 'idle: Redis ms/s': number
  readonly 'join: Redis us each': number
  readonly 'all back after a break: seconds': number
  readonly 'Redis us per subscription then': number
}

/**
 * What few instances cost Redis for leases, joins and the way back after a break of all connections, and whether many cost as much each:
 * the arithmetic of docs/scaling.md takes that for granted. All of them run in this process, each with one client.
 */
export async function controlPlane ({ number }: DrillOptions): Promise<Result> {
  const [few, many, groupsEach] = [number('few', 100), number('instances', 1_000), number('groups', 20)]
  const costs = { few: await measure(few, groupsEach), many: await measure(many, groupsEach) }
  const rows: Row[] = (Object.keys(costs.few) as Array<keyof Costs>).map(what => {
    const perInstance = what === 'idle: Redis ms/s' || what === 'all back after a break: seconds'
    const expected = perInstance ? costs.few[what] * many / few : costs.few[what]
    const [measured, factor] = [costs.many[what], costs.many[what] / expected]
    return {
      what, [`${few} instances`]: costs.few[what], expected: rounded(expected), [`${many} instances`]: measured, factor: rounded(factor)
    }
  })
  return { title: `the control plane: ${few} instances and ${many}, ${groupsEach} groups each`, rows, raw: costs }
}

async function measure (count: number, groupsEach: number): Promise<Costs> {
  const masters = await startMasters(1)
  const cpuUs = async (): Promise<number> => (await masters.cpuUs())[0] ?? 0
  const members: Member[] = []
  for (let at = 0; at < count; at += together) {
    members.push(...await Promise.all(Array.from({ length: Math.min(together, count - at) }, async () => await start(masters))))
  }
  // Each group has members on about ten instances.
  const groups = Math.ceil(count * groupsEach / 10)
  const [beforeJoins, joins] = [await cpuUs(), count * groupsEach]
  for (let at = 0; at < members.length; at += together) {
    await Promise.all(members.slice(at, at + together).flatMap(({ app, connection }, index) => {
      return Array.from(
        { length: groupsEach }, async (_, n) => await app.registry.join(connection, `group ${((at + index) * 7 + n * 31) % groups}`)
      )
    }))
  }
  const join = (await cpuUs() - beforeJoins) / joins
  await sleep(6_000)
  const beforeIdle = await cpuUs()
  await sleep(idleMs)
  const idle = (await cpuUs() - beforeIdle) / idleMs
  const [beforeBreak, startedAt] = [await cpuUs(), performance.now()]
  await masters.kill('pubsub')
  await sleep(20)
  await until(async () => members.every(({ app }) => app.registry.health().status === 'up'), 120_000)
  const backMs = performance.now() - startedAt
  const back = (await cpuUs() - beforeBreak - idle * backMs) / joins
  for (let at = 0; at < members.length; at += together) {
    await Promise.all(members.slice(at, at + together).map(async ({ app }) => await app.close()))
  }
  await masters.end()
  return {
    'idle: Redis ms/s': rounded(idle),
    'join: Redis us each': rounded(join),
    'all back after a break: seconds': rounded(backMs / 1_000),
    'Redis us per subscription then': rounded(back)
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
