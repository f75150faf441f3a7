import t from 'tap'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { resolveOptions } from '../../lib/options/resolve.ts'
import { describeOptions } from '../../lib/options/describe.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { serve } from '../helpers/service.ts'

noUnhandled(t)
const hidden = 'hunter2-hunter2-hunter2-hunter2-hunter2'

t.test('an instance describes itself, with all options in force', async (t) => {
  const { registry } = await serve(
    t, { instanceLabel: 'eu-1', maxGroupsPerConnection: 7, limits: { messages: { perSecond: 3 } } }, () => {}
  )
  const { version, node, startedAt, health, options } = registry.describe()
  t.equal(version, (JSON.parse(readFileSync(join(import.meta.dirname, '..', '..', 'package.json'), 'utf8')) as { version: string }).version)
  t.equal(node, process.version)
  t.ok(startedAt <= Date.now())
  t.same(health, registry.health())
  t.strictSame(Object.keys(options).sort(), Object.keys(resolveOptions()).sort())
  t.match(options, {
    instanceLabel: 'eu-1', maxGroupsPerConnection: 7, leaseMs: 15_000, limits: { messages: { perSecond: 3 } }, authenticate: 'function'
  })
  t.same(JSON.parse(JSON.stringify(registry.describe())), registry.describe(), 'it is JSON')
})

t.test('what a setting leaves out is described as it is in force', async (t) => {
  const log = { maxMessages: 7, ttlMs: 60_000 }
  const logs = { 'chat:*': log, other: false } as const
  const given = { log, logs, upgradeLimit: { perSecond: 9 }, limits: { messages: { perSecond: 5 } } }
  const whole = { ...log, maxBytes: 1_048_576 }
  t.match(describeOptions(resolveOptions(given)), {
    log: whole,
    logs: { 'chat:*': whole, other: false },
    userLog: { maxMessages: 100, maxBytes: 262_144 },
    upgradeLimit: { perSecond: 9, burst: 9 },
    limits: { messages: { perSecond: 5, burst: 5 }, connections: 50_000 }
  })
  const none = { log: false, userLog: false, logs: {}, limits: { messages: null } }
  t.match(describeOptions(resolveOptions({ log: false, limits: false })), none)
})

t.test('no secret is in it, wherever it stood', async (t) => {
  const client = new Redis({ host: 'db', username: hidden, password: hidden, lazyConnect: true })
  t.teardown(() => client.disconnect())
  const ways = [
    { redis: `redis://${hidden}:${hidden}@db:6380/2?password=${hidden}` },
    { redis: `redis://:${hidden}@db:6379#${hidden}` },
    {
      redis: {
        host: 'db', password: hidden, name: 'main', sentinels: [{ host: 's', port: 1 }], sentinelPassword: hidden, tls: { key: hidden }
      }
    },
    { redis: client },
    { redis: `redis://${hidden}/x@db:6379` },
    { redis: `redis://:a/${hidden}@db:6379/0` },
    { redis: `redis://db:6379/${hidden}` },
    { redis: { host: `${hidden}@db`, port: 6379 } },
    { redis: { host: 'db', name: 'main', sentinels: [{ host: hidden }], tls: { key: hidden, cert: hidden, pfx: Buffer.from(hidden) } } },
    { redis: { cluster: [`redis://:${hidden}@db:7000`], options: { password: hidden } } },
    { memberInfo: Object.assign(() => hidden, { hidden }) },
    { tracing: { run: () => hidden as never, inject: () => hidden, delivered () {}, token: hidden } },
    { rooms: { '/a/:room': { auth: { allowedOrigins: [`https://${hidden}:${hidden}@example.com`] } } } },
    { logs: (group: string) => ({ maxMessages: `${group} ${hidden}`.length }) },
    { secret: hidden },
    { secret: [hidden, hidden] },
    { options: { server: createServer({ passphrase: hidden }) } },
    { authenticate: () => ({ userId: hidden }) },
    { rooms: { '/a/:room': { auth: { authenticate: () => ({ userId: hidden }) } } } }
  ]
  for (const options of ways) {
    const described = JSON.stringify(describeOptions(resolveOptions(options)))
    t.notOk(described.includes(hidden), described)
  }
  t.equal(describeOptions(resolveOptions(ways[0])).redis, 'redis://db:6380/2')
  t.match(describeOptions(resolveOptions(ways[3])).redis, { host: 'db', port: 6379 })
})
