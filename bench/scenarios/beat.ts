import Fastify, { type FastifyInstance } from 'fastify'
import * as websocketGroups from 'fastify-websocket-groups'
import type { Connection } from 'fastify-websocket-groups'
import { setTimeout as sleep } from 'node:timers/promises'
import type { DrillOptions } from '../options.ts'
import { cpuUs } from '../rig/proc.ts'
import { startRedis, type BenchRedis } from '../rig/redis.ts'
import { until } from '../rig/until.ts'
import { beforePackage, type Package } from '../systems/before-package.ts'
import type { Result, Row } from '../results.ts'

/** What instances do once, after their boot and in the beats after joins, is over by then (milliseconds). */
const settledMs = 30_000
/** How long the CPU of Redis is measured before anybody uses it (milliseconds). */
const unusedMs = 20_000

/**
 * What instances without traffic cost Redis: their beats, which renew leases and look for what Redis lost, their pings, and their looks at
 * quiet logs. All instances run in this process. With `--before` those of the other build run beside them, on a Redis of their own.
 */
export async function beat ({ number }: DrillOptions): Promise<Result> {
  const [instances, members, groups] = [number('instances', 4), number('members', 1_000), number('groups', 300)]
  const seconds = number('seconds', 60)
  const before = await beforePackage()
  const builds: Array<readonly [string, Package]> = [['now', websocketGroups]]
  if (before !== undefined) builds.push(['before', before])
  const rows = await Promise.all(builds.map(async ([build, { default: plugin }]): Promise<Row> => {
    // By default Redis looks after itself ten times a second, which takes several times as long as what is measured.
    const redis = await startRedis('--hz', '1')
    const unused = await rates(redis, unusedMs)
    const running = await Promise.all(Array.from({ length: instances }, async () => await start(plugin, redis)))
    for (const [index, { app, open }] of running.entries()) {
      for (let n = index; n < members; n += instances) await app.registry.join(await open(), `group ${n % groups}`)
    }
    await sleep(settledMs)
    const scriptsBefore = await redis.scriptUs()
    const used = await rates(redis, seconds * 1_000)
    const scriptUs = (await redis.scriptUs() - scriptsBefore) / seconds
    for (const { app } of running) await app.close()
    await redis.close()
    const us = used.us - unused.us
    return {
      build,
      'commands/s': rounded(used.commands),
      'Redis CPU us/s': rounded(us),
      'in scripts us/s': rounded(scriptUs),
      'Redis CPU us/s of a group': rounded(us / groups)
    }
  }))
  return { title: `${instances} idle instances, ${members} members in ${groups} groups, for ${seconds} s`, rows, raw: {} }
}

/** The commands and the CPU (microseconds) of Redis in a second. */
async function rates (redis: BenchRedis, forMs: number): Promise<{ readonly commands: number, readonly us: number }> {
  const [commands, us, startedAt] = [await redis.commands(), cpuUs(redis.pid), performance.now()]
  await sleep(forMs)
  const s = (performance.now() - startedAt) / 1_000
  return { us: (cpuUs(redis.pid) - us) / s, commands: (await redis.commands() - commands) / s }
}

async function start (plugin: Package['default'], { url }: BenchRedis): Promise<{ app: FastifyInstance, open: () => Promise<Connection> }> {
  const app = Fastify()
  const opened: Connection[] = []
  await app.register(plugin, { redis: url })
  app.get('/', { websocket: true }, app.wsHandler({ onConnect (connection) { opened.push(connection) }, onMessage () {} }))
  await app.ready()
  const open = async (): Promise<Connection> => {
    const client = await app.injectWS('/')
    // Clients of injectWS do not answer pings by themselves, and would be gone after two of them.
    client.on('ping', data => client.pong(data))
    await until(async () => opened.length > 0, 5_000, 1)
    return opened.pop() as Connection
  }
  return { app, open }
}

const rounded = (value: number): number => Number(value.toPrecision(3))
