import type { Test } from 'tap'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { Redis } from 'ioredis'
import { redisBinary } from '../../scripts/redis-binary.mjs'
import { freePort } from './ports.ts'
import { until } from './until.ts'

interface RedisOptions {
  /** Keeps an append-only file in this folder, so that the data outlives `kill()` and `restart()`. Without it nothing is kept. */
  readonly appendonly?: string
  /** More arguments for redis-server. */
  readonly args?: readonly string[]
  /** A configuration file that comes before all arguments. */
  readonly config?: string
}

export interface TestRedis {
  readonly url: string
  readonly port: number
  /** Of the server that runs now; a restart changes it. */
  readonly pid: number
  /** A client that waits out a dead server. For the test's own questions, never for the code under test. */
  readonly admin: Redis
  /** SIGKILL: every connection is reset, nothing is saved. Resolves when the server is gone. */
  kill (): Promise<void>
  /** SIGSTOP: the server goes silent, its connections stay up. */
  stop (): void
  /** SIGCONT. */
  cont (): void
  /** A new server on the same port: empty, or with what `appendonly` kept. Kills the old one first. */
  restart (): Promise<void>
  /** All keys but the claim of how they are divided, which every process makes; sorted. */
  keys (): Promise<string[]>
  /** All channels that somebody is subscribed to, sorted; not those of sharded pub/sub. */
  channels (): Promise<string[]>
  /**
   * What instances that closed may not leave behind: keys and channels, sorted. A log, the position that an idempotency key stands for, and
   * the list of who is blocked outlive the instances; they are named here only when they have no time to live.
   */
  leftovers (): Promise<string[]>
  close (): Promise<void>
}

/** The keys of a group's log, of its idempotency keys, the secret with which instances sign positions, and the list of who is blocked. */
const lasting = /\{0\}:([hlkx]:|s[thx]:|(secret|blocked)$)/

/** Starts a redis-server of this test's own on a free port of 127.0.0.1, and ends it with the test. */
export async function startRedis (t: Test, options: RedisOptions = {}): Promise<TestRedis> {
  const binary = process.env.REDIS_SERVER_BIN || redisBinary()
  const port = await freePort()
  const args = [
    ...(options.config === undefined ? [] : [options.config]),
    '--port', String(port), '--bind', '127.0.0.1', '--save', '', '--loglevel', 'warning',
    ...(options.appendonly ? ['--appendonly', 'yes', '--appendfsync', 'always', '--dir', options.appendonly] : ['--appendonly', 'no']),
    ...(options.args ?? [])
  ]
  let server = await launch(binary, args, port)
  const admin = new Redis(port, '127.0.0.1', { maxRetriesPerRequest: null, retryStrategy: () => 20, disconnectTimeout: 100 })
  admin.on('error', () => {}) // expected whenever a test kills the server; commands wait for the next one

  const redis: TestRedis = {
    url: `redis://127.0.0.1:${port}`,
    port,
    admin,
    get pid () { return server.pid },
    async kill () { await end(server) },
    stop () { process.kill(server.pid, 'SIGSTOP') },
    cont () { process.kill(server.pid, 'SIGCONT') },
    async restart () {
      await end(server)
      server = await launch(binary, args, port)
      await until(() => admin.status === 'ready', { what: 'the admin client to be back' })
    },
    async keys () {
      const found = new Set<string>()
      for await (const page of admin.scanStream({ count: 1000 })) for (const key of page as string[]) found.add(key)
      return [...found].filter(key => !key.endsWith('{0}:names')).sort()
    },
    async channels () { return (await admin.pubsub('CHANNELS') as string[]).sort() },
    async leftovers () {
      const keys = await redis.keys()
      const timesToLive = await Promise.all(keys.map(async key => lasting.test(key) ? await admin.pttl(key) : undefined))
      // -2: the key expired meanwhile.
      const left = keys.filter((_, index) => timesToLive[index] === undefined || timesToLive[index] === -1)
      return [...left.map(key => lasting.test(key) ? `${key} (never expires)` : key), ...await redis.channels()]
    },
    async close () {
      admin.disconnect()
      await end(server)
    }
  }
  t.teardown(() => redis.close())
  return redis
}

interface Server {
  readonly pid: number
  readonly owner: ChildProcess
}

// The server belongs to a shell that waits for the end of its standard input. The other end of that pipe is in this
// process, so the server goes when this process goes, however it goes: no clean-up of ours runs after a SIGKILL.
const OWNER =
  '"$0" "$@" </dev/null >/dev/null 2>&1 & p=$!; echo "$p"; trap "kill -9 $p" TERM INT HUP; ' +
    'cat >/dev/null; kill -9 "$p" 2>/dev/null; wait "$p" 2>/dev/null'

async function launch (binary: string, args: readonly string[], port: number): Promise<Server> {
  const owner = spawn('sh', ['-c', OWNER, binary, ...args], { stdio: ['pipe', 'pipe', 'ignore'] })
  owner.stdin.on('error', () => {}) // EPIPE when the shell was ended by a signal
  const [line] = await once(createInterface({ input: owner.stdout }), 'line') as [string]
  const server = { pid: Number(line), owner }
  try {
    await until(() => answersPing(port), { everyMs: 5, timeoutMs: 30_000, what: `redis-server to answer on port ${port}` })
  } catch (err) {
    await end(server)
    throw err
  }
  return server
}

/** Resolves when the process is gone, and with it its port. The shell reaps it, so the shell's end is the sign. Idempotent. */
async function end ({ owner }: Server): Promise<void> {
  if (owner.exitCode !== null || owner.signalCode !== null) return
  const gone = once(owner, 'close')
  owner.stdin?.end()
  await gone
}

function answersPing (port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'))
    const settle = (answer: boolean): void => {
      socket.destroy()
      resolve(answer)
    }
    socket.setTimeout(1_000, () => settle(false))
    socket.on('error', () => settle(false))
    socket.on('close', () => settle(false))
    // -LOADING while it reads an append-only file
    socket.on('data', data => settle(data.toString().startsWith('+PONG')))
  })
}
