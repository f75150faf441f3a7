// How long an instance takes to catch up with its logs after its subscribe link broke, and what that costs.
//
//   node --import tsx bench/log-repair.ts [--groups 20000]
import { spawn } from 'node:child_process'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import { Redis } from 'ioredis'
import type { Envelope, LocalInstance } from '../lib/backplane/backplane.ts'
import { RedisBackplane } from '../lib/backplane/redis/index.ts'
import { drawId } from '../lib/ids.ts'
import { redisBinary } from '../scripts/redis-binary.mjs'
import { Wire } from '../test/faults/chaos/wire.ts'
import { until } from '../test/helpers/until.ts'

const { values } = parseArgs({ options: { groups: { type: 'string', default: '20000' } } })
const groups = Array.from({ length: Number(values.groups) }, (_, n) => `group ${n}`)
const port = 10_000 + Math.floor(Math.random() * 20_000)
const server = spawn(redisBinary(), ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--loglevel', 'warning'], { stdio: 'ignore' })
process.on('exit', () => server.kill())
const admin = new Redis(port, '127.0.0.1', { retryStrategy: () => 20, maxRetriesPerRequest: null })
admin.on('error', () => {})
await admin.ping()
const wire = await Wire.start(port)
const silent = new Proxy({}, { get: (_, key) => key === 'child' ? () => silent : key === 'level' ? 'silent' : () => {} }) as LocalInstance['log']

let delivered = 0
let gaps = 0
async function start (url: string): Promise<RedisBackplane> {
  const backplane = new RedisBackplane({
    redis: url, keyPrefix: 'wsg:', operationTimeoutMs: 500, joinTimeoutMs: 2_000, bootTimeoutMs: 5_000, leaseMs: 15_000, lingerMs: 1_000, whenDown: 'reject'
  })
  await backplane.start({
    instanceId: drawId(),
    label: '',
    log: silent,
    deliver () { delivered++ },
    gap () { gaps++ },
    logged: () => true,
    member: () => undefined,
    memberIds: () => [],
    groups: () => [],
    stateChanged () {}
  })
  return backplane
}

const [near, far] = [await start(`redis://127.0.0.1:${port}`), await start(wire.url)]
const inParts = async (names: readonly string[], run: (name: string) => Promise<unknown>): Promise<void> => {
  for (let at = 0; at < names.length; at += 500) await Promise.all(names.slice(at, at + 500).map(run))
}
const publish = async (names: readonly string[]): Promise<void> => await inParts(names, async name => await near.append(name, {
  origin: 'bench', sequence: 1, kind: 'message', target: { kind: 'group', name }, shared: false, except: [], command: '', binary: false, payload: Buffer.alloc(200, 'x')
} satisfies Envelope, { maxMessages: 100, ttlMs: 300_000 }))
const redisMs = async (): Promise<number> => [...(await admin.info('cpu')).matchAll(/^used_cpu_(?:sys|user)_main_thread:(\S+)/gm)].reduce((sum, [, seconds]) => sum + 1_000 * Number(seconds), 0)

await inParts(groups, async name => await far.subscribe({ kind: 'group', name }))
await publish(groups)
await until(() => delivered === groups.length)
console.log(`${`${groups.length} groups, missed`.padEnd(30)}  in step after   Redis CPU  own CPU  event loop late by at most (ms)`)
for (const [what, some] of [['nothing', []], ['a message in every tenth', groups.filter((_, n) => n % 10 === 0)], ['a message in each', groups]] as const) {
  const wanted = delivered + some.length
  wire.blackhole('subscribe')
  await publish(some)
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const [redisBefore, ownBefore, startedAt] = [await redisMs(), process.cpuUsage(), performance.now()]
  wire.lift()
  wire.cut('subscribe')
  await until(() => far.state !== 'up', { everyMs: 1 })
  await until(() => far.state === 'up', { everyMs: 1, timeoutMs: 30_000 })
  const took = performance.now() - startedAt
  const own = process.cpuUsage(ownBefore)
  delay.disable()
  const used = await redisMs() - redisBefore
  if (delivered !== wanted || gaps > 0) throw new Error(`${delivered} delivered instead of ${wanted}, ${gaps} gaps`)
  console.log(`${what.padEnd(30)} ${[took, used, (own.user + own.system) / 1_000, delay.max / 1e6].map(ms => String(Math.round(ms)).padStart(10)).join('  ')}`)
}
await Promise.all([near.close(), far.close()])
process.exit()
