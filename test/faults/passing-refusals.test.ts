// What Redis refuses, or keeps waiting, for a while: calls say so in time, and when it is over nothing is lost that was acknowledged,
// nothing comes twice, and all is exact.
import t, { type Test } from 'tap'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import type { WebsocketGroupsOptions } from '../../plugin.ts'
import { connect, type TestClient } from '../helpers/client.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis, type TestRedis } from '../helpers/redis.ts'
import { serve, type Served } from '../helpers/service.ts'
import { startTlsProxies } from '../helpers/tls-proxy.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

async function start (t: Test, redis: WebsocketGroupsOptions['redis']): Promise<Served> {
  return await serve(t, { redis, leaseMs: 5_000 }, app => app.wsRoom('/:room', { auth: false, group: ({ room }) => room }))
}

function folder (t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'passing-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** Sends until told to stop: what was acknowledged, and the codes of what was not. */
function send ({ registry }: Served): { stop (): Promise<{ acknowledged: string[], codes: string[] }> } {
  const [acknowledged, codes]: [string[], Set<string>] = [[], new Set()]
  const stopping = new AbortController()
  const all: Array<Promise<unknown>> = []
  const running = (async () => {
    for (let n = 0; !stopping.signal.aborted; n++) {
      all.push(registry.broadcastToGroup('room', String(n)).then(
        () => acknowledged.push(String(n)), (error: { code: string }) => codes.add(error.code)
      ))
      await sleep(10)
    }
  })()
  return {
    async stop () {
      stopping.abort()
      await running
      await Promise.all(all)
      return { acknowledged, codes: [...codes] }
    }
  }
}

async function works ({ registry }: Served, client: TestClient, text: string): Promise<void> {
  await registry.broadcastToGroup('room', text)
  await client.nextWhere(message => message === text)
}

/** Each has what it takes to begin and to end the condition, and the codes with which calls may fail meanwhile. */
const conditions: Record<string, {
  readonly args?: (path: string) => string[]
  readonly begin: (redis: TestRedis, path: string) => Promise<unknown>
  readonly end: (redis: TestRedis, path: string) => Promise<unknown>
  readonly codes: readonly string[]
}> = {
  'MISCONF: Redis cannot save': {
    args: path => ['--dir', path, '--save', '3600 1000000'],
    begin: async ({ admin }, path) => {
      mkdirSync(join(path, 'dump.rdb'))
      await admin.bgsave()
      await until(async () => (await admin.info('persistence')).includes('rdb_last_bgsave_status:err'))
    },
    end: async ({ admin }) => await admin.config('SET', 'stop-writes-on-bgsave-error', 'no'),
    codes: ['WSG_BACKPLANE_UNAVAILABLE']
  },
  'NOREPLICAS: too few replicas': {
    begin: async ({ admin }) => await admin.config('SET', 'min-replicas-to-write', '1'),
    end: async ({ admin }) => await admin.config('SET', 'min-replicas-to-write', '0'),
    codes: ['WSG_BACKPLANE_UNAVAILABLE']
  },
  'BUSY: the script of somebody else takes long': {
    args: () => ['--busy-reply-threshold', '100'],
    begin: async ({ port, admin }) => {
      const other = new Redis(port)
      other.eval('while true do end', 0).catch(() => {}).finally(() => other.disconnect())
      await until(async () => await admin.ping().then(() => false, () => true))
    },
    end: async ({ admin }) => {
      await admin.script('KILL')
      // The script runs on for a moment after the answer, and Redis refuses commands for as long.
      await until(async () => await admin.ping().then(() => true, () => false))
    },
    codes: ['WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT']
  },
  'CLIENT PAUSE': {
    begin: async ({ admin }) => await admin.call('CLIENT', 'PAUSE', '700', 'ALL'),
    end: async ({ admin }) => await admin.ping(),
    codes: ['WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT']
  },
  'DEBUG SLEEP: Redis does something long': {
    args: () => ['--enable-debug-command', 'yes'],
    begin: async ({ port }) => {
      const other = new Redis(port)
      other.call('DEBUG', 'SLEEP', '0.8').finally(() => other.disconnect())
    },
    end: async ({ admin }) => await admin.ping(),
    codes: ['WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT']
  }
}

for (const [name, { args, begin, end, codes }] of Object.entries(conditions)) {
  t.test(name, async t => {
    const path = folder(t)
    const redis = await startRedis(t, { args: args?.(path) ?? [] })
    const [one, other] = await Promise.all([start(t, redis.url), start(t, redis.url)])
    const clients = [connect(t, `${one.url}/room`), connect(t, `${other.url}/room`)]
    await until(async () => await other.registry.groupCount('room') === 2)
    const sending = send(one)
    await sleep(50)
    await begin(redis, path)
    await sleep(500)
    await end(redis, path)
    await until(() => [one, other].every(({ registry }) => registry.health().status === 'up'), { timeoutMs: 15_000 })
    const { acknowledged, codes: seen } = await sending.stop()
    for (const client of clients) await works(one, client, `after ${clients.indexOf(client)}`)
    for (const { messages } of clients) {
      t.strictSame(acknowledged.filter(text => !messages.includes(text)), [], 'what was acknowledged came')
      t.equal(new Set(messages).size, messages.length, 'nothing came twice')
    }
    t.strictSame(seen.filter(code => !codes.includes(code)), [], 'calls say what happened')
    t.ok(acknowledged.length > 0)
    t.equal(await one.registry.groupCount('room'), 2)
    t.equal(one.registry.stats().gaps, 0, 'no gap is told')
  })
}

t.test('LOADING at boot: the instance is ready, and up once the data is there', async t => {
  const path = folder(t)
  const redis = await startRedis(t, { appendonly: path, args: ['--key-load-delay', '1000'] })
  await redis.admin.eval("for i = 1, 1500 do redis.call('SET', 'filler-' .. i, i) end", 0)
  const restarted = redis.restart()
  const served = await start(t, redis.url)
  await until(() => served.registry.health().status === 'up', { timeoutMs: 20_000 })
  await restarted
  const client = connect(t, `${served.url}/room`)
  await until(async () => await served.registry.groupCount('room') === 1)
  await works(served, client, 'hello')
})

t.test('a unix socket', async t => {
  const socket = join(folder(t), 'redis.sock')
  await startRedis(t, { args: ['--unixsocket', socket] })
  const served = await start(t, socket)
  const client = connect(t, `${served.url}/room`)
  await until(async () => await served.registry.groupCount('room') === 1)
  await works(served, client, 'hello')
})

t.test('TLS', async t => {
  const redis = await startRedis(t)
  const { ports: [port], cert } = await startTlsProxies(t, [redis.port])
  const served = await start(t, { host: 'localhost', port, tls: { ca: cert } })
  const client = connect(t, `${served.url}/room`)
  await until(async () => await served.registry.groupCount('room') === 1)
  await works(served, client, 'hello')
  await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await until(async () => await works(served, client, 'again').then(() => true, () => false))
})

t.test('a password that is changed: the client that was given tells the new one', async t => {
  const redis = await startRedis(t)
  await redis.admin.config('SET', 'requirepass', 'old')
  const own = new Redis(redis.port, { password: 'old' })
  t.teardown(() => own.disconnect())
  own.on('error', () => {})
  const served = await start(t, own)
  const client = connect(t, `${served.url}/room`)
  await until(async () => await served.registry.groupCount('room') === 1)
  own.options.password = 'new'
  await redis.admin.config('SET', 'requirepass', 'new')
  await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await until(async () => await works(served, client, 'again').then(() => true, () => false), { timeoutMs: 10_000 })
})
