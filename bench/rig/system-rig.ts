import { load, type SystemName } from '../systems/system.ts'
import { freePort } from '../../test/helpers/ports.ts'
import { bunBinary } from './bun-binary.ts'
import { start, type Child } from './child.ts'
import type { Lag } from './lag.ts'
import { LoadGenerator, type Members } from './load-generator.ts'
import type { Plan, PublisherApi, Sent } from './publisher.ts'
import { startRedis, type BenchRedis } from './redis.ts'
import type { Rig, RigOptions } from './rig.ts'
import type { ServerApi } from './server.ts'

/** V8 lets its young generation grow by chance up to 32 MB, as much as thousands of connections take. */
const youngGeneration = ['--min-semi-space-size=1', '--max-semi-space-size=1']
/**
 * malloc of glibc gives each thread its own arena, and keeps there what the compiler and the garbage collector freed: 16 to 28 MB, by
 * chance. In one arena, from which large blocks go back to the system, it is 9 MB.
 */
const oneArena = { MALLOC_ARENA_MAX: '1', MALLOC_TRIM_THRESHOLD_: '131072', MALLOC_MMAP_THRESHOLD_: '16384' }

/** Instances of a system behind one Redis, and one more process that publishes. */
export class SystemRig implements Rig {
  readonly load = new LoadGenerator()
  readonly redis: BenchRedis
  readonly #system: SystemName
  readonly #ports: readonly number[]
  readonly #servers: ReadonlyArray<Child<ServerApi>>
  readonly #publisher: Child<PublisherApi>

  private constructor (
    system: SystemName, redis: BenchRedis, ports: readonly number[], servers: ReadonlyArray<Child<ServerApi>>,
    publisher: Child<PublisherApi>
  ) {
    this.#system = system
    this.redis = redis
    this.#ports = ports
    this.#servers = servers
    this.#publisher = publisher
  }

  static async start (
    name: SystemName, { instances = 1, bystanders = 0, binary = false, steadyMemory = false }: RigOptions
  ): Promise<SystemRig> {
    const redis = await startRedis()
    const env = { ...process.env, NODE_ENV: 'production' }
    // Bun runs TypeScript by itself, and speaks JSON alone with its parent.
    const runtime = name === 'bun'
      ? { execPath: bunBinary(), execArgv: [], serialization: 'json' as const, env }
      : {
          execArgv: ['--expose-gc', ...(steadyMemory ? youngGeneration : []), '--import', 'tsx'],
          env: steadyMemory ? { ...env, ...oneArena } : env
        }
    const ports: number[] = []
    const servers: Array<Child<ServerApi>> = []
    for (let i = 0; i < instances + bystanders; i++) {
      const port = await freePort()
      servers.push(await start<ServerApi>('server.ts', [name, String(port), redis.url, binary ? 'binary' : 'text'], runtime))
      if (i < instances) ports.push(port)
    }
    const publisher = await start<PublisherApi>('publisher.ts', [name, redis.url], { env })
    return new SystemRig(name, redis, ports, servers, publisher)
  }

  get pids (): number[] { return this.#servers.map(({ pid }) => pid) }
  get redisPid (): number { return this.redis.pid }
  get publisherPid (): number { return this.#publisher.pid }

  async open (
    members: Members, generator = this.load
  ): Promise<number> { return await generator.open(await load(this.#system), this.#ports, members) }

  async publish (plan: Plan): Promise<void> { await this.#publisher.call.start(plan) }
  async sent (): Promise<number> { return await this.#publisher.call.total() }
  async stop (): Promise<Sent> { return await this.#publisher.call.stop() }
  async lags (): Promise<Lag[]> { return await Promise.all(this.#servers.map(async ({ call }) => await call.lag())) }
  async connections (): Promise<number> {
    return (await Promise.all(
      this.#servers.map(async ({ call }) => await call.connections())
    )).reduce((a, b) => a + b, 0)
  }

  async fromRedis (): Promise<number[]> { return await Promise.all(this.#servers.map(async ({ call }) => await call.fromRedis())) }
  async heapBytes (): Promise<number[]> { return await Promise.all(this.#servers.map(async ({ call }) => await call.heapBytes())) }

  async close (): Promise<void> {
    await this.load.end()
    await Promise.all([this.#publisher, ...this.#servers].map(async child => await child.end('SIGKILL')))
    await this.redis.close()
  }
}
