import { freePort } from '../../test/helpers/ports.ts'
import { start, type Child } from './child.ts'
import type { InstanceApi } from './instance.ts'
import type { LoadApi, OpenOptions } from './load.ts'
import { startRedis, type BenchRedis } from './redis.ts'
import { Spread } from './spread.ts'
import type { DrillName } from '../systems/system.ts'
import { until } from './until.ts'

interface ClusterOptions {
  readonly instances: number
  readonly workers: number
  readonly clients: number
  readonly groups: readonly string[]
}

export type Report = Awaited<ReturnType<Cluster['report']>>

/** Instances of one system behind one Redis, one more that only publishes, and the processes that hold the clients. */
export class Cluster {
  readonly ports: number[] = []
  readonly instances: Array<Child<InstanceApi>> = []
  readonly #system: DrillName
  readonly #options: ClusterOptions
  readonly #publisher: Child<InstanceApi>
  readonly #workers: Array<Child<LoadApi>>
  readonly redis: BenchRedis

  private constructor (
    system: DrillName, options: ClusterOptions, redis: BenchRedis, publisher: Child<InstanceApi>, workers: Array<Child<LoadApi>>
  ) {
    this.#system = system
    this.#options = options
    this.redis = redis
    this.#publisher = publisher
    this.#workers = workers
  }

  static async start (system: DrillName, options: ClusterOptions): Promise<Cluster> {
    const redis = await startRedis()
    const publisher = await start<InstanceApi>('instance.ts', [system, String(await freePort()), redis.url])
    const workers = await Promise.all(Array.from({ length: options.workers }, async () => await start<LoadApi>('load.ts', [system])))
    const cluster = new Cluster(system, options, redis, publisher, workers)
    for (let i = 0; i < options.instances; i++) {
      cluster.ports.push(await freePort())
      await cluster.startInstance(i)
    }
    return cluster
  }

  async startInstance (i: number): Promise<void> {
    this.instances[i] = await start<InstanceApi>('instance.ts', [this.#system, String(this.ports[i]), this.redis.url])
  }

  /** Resolves when all clients are there. */
  async open (options: Pick<OpenOptions, 'ports'> & Partial<OpenOptions> = { ports: this.ports }): Promise<void> {
    const { workers, clients, groups } = this.#options
    await Promise.all(this.#workers.map(
      async ({ call }) => await call.open({ clients: Math.round(clients / workers), groups, backoffMs: undefined, ...options })
    ))
    await this.allBack()
    await this.usage() // counts from here on
  }

  async #sum (count: (worker: Child<LoadApi>) => Promise<number>): Promise<number> {
    return (await Promise.all(this.#workers.map(count))).reduce((a, b) => a + b, 0)
  }

  async away (): Promise<number> {
    return await this.#sum(async ({ call }) => await call.away())
  }

  /** Resolves when clients have noticed that many breaks. */
  async broken (count: number): Promise<void> {
    await until(async () => await this.#sum(async ({ call }) => await call.breaks()) >= count, 10_000, 5)
  }

  /** Resolves with whether all are. */
  async allBack (): Promise<boolean> {
    return await until(async () => await this.away() === 0, 60_000)
  }

  /** For all workers. */
  async each (action: (call: Child<LoadApi>['call']) => Promise<unknown>): Promise<void> {
    await Promise.all(this.#workers.map(async ({ call }) => await action(call)))
  }

  async publish (everyMs: number): Promise<void> {
    await this.#publisher.call.publish(this.#options.groups, everyMs)
  }

  async stopPublishing (): Promise<void> {
    await this.#publisher.call.stop()
  }

  /** Stops publishing, gives what is under way some time to arrive, and adds up what the clients got. */
  async report () {
    const sent = await this.#publisher.call.stop()
    const count = async (): Promise<number> => await this.#sum(async ({ call }) => await call.delivered())
    // Until nothing has come for 3 s.
    for (let before = -1, now = await count(); before !== now; now = await count()) {
      before = now
      await new Promise(resolve => setTimeout(resolve, 3_000))
    }
    const reports = await Promise.all(this.#workers.map(async ({ call }) => await call.report(sent)))
    const total = (
      key: 'due' | 'delivered' | 'doubled' | 'outOfOrder' | 'breaks' | 'signals' | 'lostSilently'
    ): number => reports.reduce((sum, report) => sum + report[key], 0)
    return {
      sent: Object.values(sent).reduce((a, b) => a + b, 0),
      due: total('due'),
      delivered: total('delivered'),
      doubled: total('doubled'),
      outOfOrder: total('outOfOrder'),
      breaks: total('breaks'),
      signals: total('signals'),
      lostSilently: total('lostSilently'),
      ages: Spread.sum(reports.map(({ ages }) => ages)),
      away: Spread.sum(reports.map(({ away }) => away)),
      pauses: Spread.sum(reports.map(({ pauses }) => pauses))
    }
  }

  /** CPU and lag of each process since the last call. */
  async usage () {
    return {
      instances: await Promise.all(this.instances.map(async ({ call }) => await call.usage())),
      workers: await Promise.all(this.#workers.map(async ({ call }) => await call.usage()))
    }
  }

  async close (): Promise<void> {
    await Promise.all([...this.#workers, ...this.instances, this.#publisher].map(async child => await child.end('SIGKILL')))
    await this.redis.close()
  }
}
