// What logs cost Redis: CPU of an append, alone and in batches of 16, beside a PUBLISH, and memory per logged group.
//
//   node --import tsx bench/log-cost.ts
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { Redis } from 'ioredis'
import { encode, encodeBody } from '../lib/backplane/redis/envelope.ts'
import { Keys } from '../lib/backplane/redis/keys.ts'
import { append, readLog } from '../lib/backplane/redis/log/scripts.ts'
import { drawId } from '../lib/ids.ts'
import { redisBinary } from '../scripts/redis-binary.mjs'

const messages = 100_000
const groups = 10
const port = 10_000 + Math.floor(Math.random() * 20_000)
const server = spawn(redisBinary(), ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--loglevel', 'warning'], { stdio: 'ignore' })
process.on('exit', () => server.kill())
const redis = new Redis(port, '127.0.0.1', { retryStrategy: () => 20, maxRetriesPerRequest: null })
redis.on('error', () => {})
await redis.ping()

const keys = new Keys('wsg:')
const publisher = drawId()
const target = { kind: 'group', name: 'group' } as const
const message = { origin: publisher, sequence: 1, kind: 'message', target, shared: false, except: [], command: '', binary: false, payload: Buffer.alloc(200, 'x') } as const
const bytes = encode(message, target)
const body = encodeBody(message, target)
let sequence = 0

function appendTo (pipeline: ReturnType<Redis['pipeline']>, group: string, count: number, keep: number, key?: string): void {
  const batch = Array.from({ length: count }, () => [randomBytes(4), body]).flat()
  sequence += count
  const names = [keys.logMeta(group), keys.log(group), ...(key === undefined ? [] : [keys.idempotency(group, key)])]
  pipeline.evalsha(append.sha, names.length, ...names, keys.channel({ kind: 'group', name: group }), keep, 300_000, 604_800_000, randomBytes(8), publisher, sequence, 300_000, ...batch)
}

/** A call that Redis refuses costs nothing that is worth knowing. */
async function carryOut (pipeline: ReturnType<Redis['pipeline']>): Promise<void> {
  for (const [error] of await pipeline.exec() ?? []) if (error !== null) throw error
}

/** CPU seconds of the main thread, and microseconds that commands took. */
async function used (): Promise<{ readonly cpuUs: number, readonly commandUs: number }> {
  const cpu = [...(await redis.info('cpu')).matchAll(/^used_cpu_(?:sys|user)_main_thread:(\S+)/gm)].reduce((sum, [, seconds]) => sum + Number(seconds), 0)
  const stats = [...(await redis.info('commandstats')).matchAll(/^cmdstat_(publish|evalsha|hmget):calls=\d+,usec=(\d+)/gm)]
  // What a script calls counts for the script, too.
  const commandUs = Number((stats.find(([, name]) => name === 'evalsha') ?? stats.find(([, name]) => name === 'publish') ?? stats[0])?.[2] ?? 0)
  return { cpuUs: cpu * 1e6, commandUs }
}

async function measure (what: string, calls: number, perCall: number, queue: (pipeline: ReturnType<Redis['pipeline']>, n: number) => void): Promise<void> {
  await redis.config('RESETSTAT')
  const before = await used()
  for (let start = 0; start < calls; start += 500) {
    const pipeline = redis.pipeline()
    for (let n = start; n < Math.min(calls, start + 500); n++) queue(pipeline, n)
    await carryOut(pipeline)
  }
  const after = await used()
  const each = (us: number): string => (us / calls / perCall).toFixed(2).padStart(8)
  console.log(`${what.padEnd(46)} ${each(after.commandUs)} ${each(after.cpuUs - before.cpuUs)}`)
}

for (const { lua } of [append, readLog]) await redis.script('LOAD', lua)
const warmUp = redis.pipeline()
for (let n = 0; n < 2_000; n++) appendTo(warmUp, 'group', 1, 100)
await carryOut(warmUp)

for (const subscribers of [0, 3]) {
  const others = await Promise.all(Array.from({ length: subscribers }, async () => {
    const other = new Redis(port, '127.0.0.1')
    await other.subscribe(keys.channel(target))
    return other
  }))
  console.log(`\n${'us per message of 200 B, ' + subscribers + ' subscribers'.padEnd(20)}       command  with I/O`)
  await measure('volatile: PUBLISH', messages, 1, pipeline => pipeline.publish(keys.channel(target), bytes))
  await measure('logged, one call each', messages, 1, pipeline => appendTo(pipeline, 'group', 1, 100))
  await measure('logged, one call each, with a key', messages / 4, 1, (pipeline, n) => appendTo(pipeline, 'group', 1, 100, `${subscribers} ${n}`))
  for (const k of [4, 16, 64]) await measure(`logged, ${k} per call`, messages / k, k, pipeline => appendTo(pipeline, 'group', k, 100))
  for (const other of others) other.disconnect()
}

console.log(`\n${'us per group'.padEnd(46)}  command  with I/O`)
const [epoch, offset, nonce] = await redis.hmgetBuffer(keys.logMeta('group'), 'e', 's', 'n')
const read = (pipeline: ReturnType<Redis['pipeline']>, behind: number): unknown =>
  pipeline.evalsha(readLog.sha, 2, keys.logMeta('group'), keys.log('group'), behind === 0 ? epoch as Buffer : '$', Number(offset), nonce as Buffer, Math.max(1, behind))
await measure('compare: HMGET', messages, 1, pipeline => pipeline.hmget(keys.logMeta('group'), 'e', 's', 'n'))
await measure('read, nothing missed', messages, 1, pipeline => read(pipeline, 0))
await measure('read 5 messages', messages, 1, pipeline => read(pipeline, 5))
await measure('read 100 messages', messages / 10, 1, pipeline => read(pipeline, 100))

console.log(`\n${'bytes per logged group'.padEnd(46)}   in all      meta       log`)
for (const count of [1, 5, 20, 100]) {
  await redis.flushall()
  for (let group = 0; group < groups; group++) {
    const pipeline = redis.pipeline()
    for (let n = 0; n < count; n++) appendTo(pipeline, `group ${group}`, 1, 100)
    await carryOut(pipeline)
  }
  // With the entry in the keyspace; Redis's own total moves by more than this with the buffers of its clients.
  const [meta, log] = [await redis.memory('USAGE', keys.logMeta('group 0'), 'SAMPLES', 0) ?? 0, await redis.memory('USAGE', keys.log('group 0'), 'SAMPLES', 0) ?? 0]
  console.log(`${`${count} messages of 200 B (${bytes.length} B with the header)`.padEnd(46)} ${[meta + log, meta, log].map(value => String(value).padStart(8)).join('  ')}`)
}
redis.disconnect()
server.kill()
