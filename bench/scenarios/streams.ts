import Fastify from 'fastify'
import websocketGroups from 'fastify-websocket-groups'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import type { DrillOptions } from '../options.ts'
import { startMasters } from '../rig/masters.ts'
import { until } from '../rig/until.ts'
import type { Result } from '../results.ts'

/**
 * What streams of tokens cost one Redis and one instance, which has a reader for each stream. The readers are in this process, too, so that
 * its CPU is an upper bound; what they are late by is that of a busy process.
 */
export async function streams ({ number }: DrillOptions): Promise<Result> {
  const [count, perSecond, seconds] = [number('streams', 200), number('tokens', 50), number('seconds', 10)]
  const flushMs = number('flush', 50)
  const redis = await startMasters(1)
  const app = Fastify()
  await app.register(websocketGroups, { redis: redis.redis, limits: false })
  app.wsRoom('/:room', { auth: false })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const lateMs: number[] = []
  let pieces = 0
  const readers = Array.from({ length: count }, (_, n) => {
    const reader = new WebSocket(`ws://127.0.0.1:${(app.server.address() as AddressInfo).port}/room${n}`)
    reader.on('message', data => {
      const text = (JSON.parse(String(data)) as { data: { text: string } }).data.text
      if (text === '') return
      pieces++
      // Of the first token of the piece, which waited longest.
      lateMs.push(performance.now() - Number(text.slice(0, text.indexOf(' '))))
    })
    return reader
  })
  await until(async () => app.registry.count() === count && readers.every(({ readyState }) => readyState === WebSocket.OPEN), 60_000)
  const made = Array.from({ length: count }, (_, n) => app.registry.stream(`room${n}`, 'reply', { flushMs, maxBytes: 1_048_576 }))
  await sleep(1_000)
  lateMs.length = pieces = 0
  const [calls, redisUs, cpu, startedAt] = [await redis.calls(), (await redis.cpuUs())[0] ?? 0, process.cpuUsage(), performance.now()]
  let tokens = 0
  for (let n = 0; n < perSecond * seconds; n++) {
    await sleep(Math.max(0, startedAt + n * 1_000 / perSecond - performance.now()))
    for (const stream of made) if (stream.append(`${performance.now().toFixed(1)} `)) tokens++
  }
  await sleep(200)
  const ms = performance.now() - startedAt
  const { user, system } = process.cpuUsage(cpu)
  const each = (total: number): number => Math.round(total / tokens * 100) / 100
  const late = lateMs.sort((a, b) => a - b)
  const row = {
    streams: count,
    'tokens/s': Math.round(tokens / ms * 1_000),
    'tokens per piece': Math.round(tokens / pieces * 100) / 100,
    'Redis commands per token': each(await redis.calls() - calls),
    'Redis us per token': each(((await redis.cpuUs())[0] ?? 0) - redisUs),
    'process us per token': each(user + system),
    'p50 ms': Math.round(late[Math.floor(late.length / 2)] ?? NaN),
    'p99 ms': Math.round(late[Math.floor(late.length * 0.99)] ?? NaN)
  }
  await Promise.all(made.map(async stream => await stream.done()))
  for (const reader of readers) reader.terminate()
  await app.close()
  await redis.end()
  return { title: `streams of tokens: ${count} of ${perSecond} tokens/s each, gathered for ${flushMs} ms`, rows: [row], raw: row }
}
