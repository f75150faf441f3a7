import Fastify from 'fastify'
import websocketGroups, { createPublisher, type Connection } from 'fastify-websocket-groups'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { WebSocket } from 'ws'
import { Wire } from '../../test/faults/chaos/wire.ts'
import type { DrillOptions } from '../options.ts'
import { cpuUs } from '../rig/proc.ts'
import { startRedis } from '../rig/redis.ts'
import { until } from '../rig/until.ts'
import type { Result, Row } from '../results.ts'

const payload = 'x'.repeat(200)
const much = 256 * 1_024 * 1_024

/** How long an instance takes to catch up with its logs after its subscribe link broke, and what that costs. */
export async function logRepair ({ number }: DrillOptions): Promise<Result> {
  const groups = Array.from({ length: number('groups', 20_000) }, (_, n) => `group ${n}`)
  const redis = await startRedis()
  const wire = await Wire.start(Number(new URL(redis.url).port))
  const publisher = createPublisher({ redis: redis.url, operationTimeoutMs: 10_000 })
  const publish = async (names: readonly string[]): Promise<void> => {
    await inParts(names, async name => await publisher.broadcastToGroup(name, payload))
  }

  // One client in all groups: what it takes to write to it is part of the CPU of the instance.
  const app = Fastify()
  await app.register(websocketGroups, {
    redis: wire.url,
    joinTimeoutMs: 10_000,
    maxGroupsPerConnection: groups.length,
    maxBufferedBytes: much,
    slowBufferedBytes: much
  })
  let connection: Connection | undefined
  app.get('/', { websocket: true }, app.wsHandler({ onConnect (opened) { connection = opened }, onMessage () {} }))
  await app.listen({ port: 0, host: '127.0.0.1' })
  const client = new WebSocket(`ws://127.0.0.1:${(app.server.address() as AddressInfo).port}`)
  let delivered = 0
  client.on('message', () => { delivered++ })
  await once(client, 'open')
  await until(async () => connection !== undefined, 5_000)
  await inParts(groups, async name => await app.registry.join(connection as Connection, name))
  await publish(groups)
  await arrived(groups.length)

  async function arrived (count: number): Promise<void> {
    await until(async () => delivered >= count, 10_000)
    if (delivered !== count) throw new Error(`${delivered} delivered instead of ${count}`)
  }

  async function repair (what: string, missed: readonly string[]): Promise<Row> {
    const due = delivered + missed.length
    wire.blackhole('subscribe')
    await publish(missed)
    const delay = monitorEventLoopDelay({ resolution: 1 })
    delay.enable()
    const [redisBefore, ownBefore, startedAt] = [cpuUs(redis.pid), process.cpuUsage(), performance.now()]
    wire.lift()
    wire.cut('subscribe')
    await until(async () => app.registry.health().status !== 'up', 5_000, 1)
    if (!await until(async () => app.registry.health().status === 'up', 30_000, 1)) throw new Error('the instance is not in step again')
    const tookMs = performance.now() - startedAt
    const own = process.cpuUsage(ownBefore)
    const redisMs = (cpuUs(redis.pid) - redisBefore) / 1e3
    delay.disable()
    await arrived(due)
    return {
      missed: what,
      'in step after ms': Math.round(tookMs),
      'Redis CPU ms': Math.round(redisMs),
      'own CPU ms': Math.round((own.user + own.system) / 1e3),
      'event loop late by at most ms': Math.round(delay.max / 1e6)
    }
  }

  const rows = [
    await repair('nothing', []),
    await repair('a message in every tenth', groups.filter((_, n) => n % 10 === 0)),
    await repair('a message in each', groups)
  ]
  client.terminate()
  await Promise.all([app.close(), publisher.close()])
  await redis.close()
  return { title: `an instance with ${groups.length} groups whose subscribe link broke`, rows, raw: {} }
}

async function inParts (names: readonly string[], run: (name: string) => Promise<unknown>): Promise<void> {
  for (let at = 0; at < names.length; at += 500) await Promise.all(names.slice(at, at + 500).map(run))
}
