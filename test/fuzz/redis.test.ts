// Whatever somebody writes to Redis, on the channels and into the logs of this package: it is dropped or it is a loss that is told; who has
// nothing to do with the group is served, and the group goes on.
import fc from 'fast-check'
import t from 'tap'
import { WebSocket } from 'ws'
import type { Envelope, Target } from '../../lib/backplane/backplane.ts'
import { encode } from '../../lib/backplane/redis/envelope.ts'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { attacked, fuzz } from './rig.ts'

const redis = await startRedis(t)
const keys = new Keys('wsg:')
const service = await attacked(t, { redis: redis.url, operationTimeoutMs: 5_000, joinTimeoutMs: 5_000 }, app => {
  app.wsRoom('/room/:room', { auth: false, group: ({ room }) => room, presence: true, history: 5 })
})
const instanceId = service.app.registry.instanceId
const groups = ['a', 'b', 'c']
const target = (name: string): Target => ({ kind: 'group', name })

const envelope: fc.Arbitrary<Buffer> = fc.record({
  origin: fc.oneof(fc.constant(instanceId), fc.string({ maxLength: 12 })),
  sequence: fc.nat(),
  kind: fc.constantFrom('message', 'command', 'presence', 'reply'),
  target: fc.constantFrom(...groups).map(target),
  shared: fc.boolean(),
  except: fc.array(fc.string({ maxLength: 8 }), { maxLength: 2 }),
  command: fc.oneof(fc.constantFrom('', 'join', 'leave', 'disconnect', 'block'), fc.string({ maxLength: 8 })),
  binary: fc.boolean(),
  payload: fc.oneof(fc.uint8Array({ maxLength: 50 }), fc.json().map(text => Buffer.from(text))).map(data => Buffer.from(data))
}).map(fields => {
  try {
    return encode(fields as Envelope, fields.target)
  } catch {
    return Buffer.from('not an envelope')
  }
})
const noise = fc.uint8Array({ maxLength: 100 }).map(data => Buffer.from(data))
/** Envelopes with a few bytes changed, cut off or doubled. */
const change = fc.tuple(fc.nat(60), fc.nat(255))
const almost = fc.tuple(envelope, fc.array(change, { maxLength: 3 }), fc.nat(100)).map(([bytes, changes, cut]) => {
  const changed = Buffer.from(bytes)
  for (const [at, byte] of changes) if (at < changed.length) changed[at] = byte
  return cut < 50 ? changed : changed.subarray(0, cut)
})
const data = fc.oneof(noise, almost, envelope)
const group = fc.constantFrom(...groups)
const input = fc.oneof(
  { weight: 4, arbitrary: fc.record({ how: fc.constantFrom('publish', 'inbox', 'all', 'user'), group, data }) },
  { weight: 3, arbitrary: fc.record({ how: fc.constantFrom('push', 'unshift'), group, data }) },
  { weight: 1, arbitrary: fc.record({ how: fc.constantFrom('epoch', 'offset', 'nonce', 'type', 'delete', 'open'), group, data }) }
)

/** Somebody who is in the group meanwhile, and comes back as often as it is closed. */
async function visit (group: string): Promise<number> {
  const socket = new WebSocket(`${service.url.replace('http', 'ws')}/room/${group}`, ['wsg.v1'])
  return await new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined
    socket.on('open', () => {
      socket.send(JSON.stringify({ type: 'hello', resume: { [group]: 'A'.repeat(24) } }))
      timer = setTimeout(() => socket.close(1000), 50)
    })
    socket.on('close', code => {
      clearTimeout(timer)
      resolve(code)
    })
    socket.on('error', reject)
    setTimeout(() => reject(new Error('a visitor of the group was neither let in nor let go')), 10_000).unref()
  })
}

const { admin } = redis
const channel = (target: Target): string => keys.channel(target)

await fuzz(t, input, async ({ how, group, data }) => {
  const [meta, log] = [keys.logMeta(group), keys.log(group)]
  const quietly = async (writing: Promise<unknown>): Promise<void> => {
    await writing.catch((error: Error) => { if (!/WRONGTYPE/.test(error.message)) throw error })
  }
  switch (how) {
    case 'publish': await admin.publish(channel(target(group)), data); break
    case 'inbox': await admin.publish(channel({ kind: 'instance', name: instanceId }), data); break
    case 'all': await admin.publish(channel({ kind: 'all', name: '' }), data); break
    case 'user': await admin.publish(channel({ kind: 'user', name: 'ann' }), data); break
    case 'push': await quietly(admin.rpush(log, data)); break
    case 'unshift': await quietly(admin.lpush(log, data)); break
    case 'epoch': await quietly(admin.hset(meta, 'e', data)); break
    case 'offset': await quietly(admin.hset(meta, 's', data)); break
    case 'nonce': await quietly(admin.hset(meta, 'n', data)); break
    case 'type': await admin.set(log, data); break
    case 'delete': await admin.del(meta, log); break
    case 'open': await quietly(admin.persist(meta))
  }
  const code = await visit(group).catch((error: Error) => { throw new Error(`${error.message} after ${how} ${data.toString('hex')}`) })
  if (![1000, 1005, 1013].includes(code)) {
    throw new Error(`a visitor of the group was closed with ${code} after ${how} ${data.toString('hex')}`)
  }
})

const { envelopesUnknown } = service.app.registry.stats()
// What is broken in Redis is not repaired by itself; once it is gone, the groups go on.
for (const name of groups) await admin.del(keys.logMeta(name), keys.log(name))
for (const name of groups) await until(async () => await service.app.registry.broadcastToGroup(name, 'on').then(() => true, () => false))
await service.finish()
t.ok(Number(envelopesUnknown) > 0, 'what is no envelope is counted')
