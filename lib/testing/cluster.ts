import type { FastifyInstance } from 'fastify'
import type { AddressInfo } from 'node:net'
import type { ConnectOptions } from '../client/index.ts'
import type { WebsocketGroupsOptions } from '../options/types.ts'
import { ending, FramedTestClient, TestClient, type OpenOptions } from './clients.ts'
import { memoryWires, redisWires, type Wire, type Wires } from './wires.ts'

export interface TestClusterOptions {
  /**
   * Builds one instance of the application. Pass `options` to `app.register(websocketGroups, …)`, together with your own. The cluster calls
   * `listen` afterwards.
   */
  readonly app: (options: Pick<WebsocketGroupsOptions, 'backplane' | 'redis' | 'keyPrefix'>) => FastifyInstance | Promise<FastifyInstance>
  /** How many instances there are at first. @default 2 */
  readonly instances?: number | undefined
  /**
   * The URL of a Redis, or `'find'` for the Redis of the environment variable `REDIS_URL`, else the one at 127.0.0.1:6379. The cluster uses
   * keys of its own there. @default none: the instances share the memory of this process
   */
  readonly redis?: string | undefined
}

export interface TestInstance {
  readonly app: FastifyInstance
  /** `http://127.0.0.1:<port>` */
  readonly url: string
  /**
   * Ends the instance as a crash does: clients see no close frame (1006), and nobody is told. Its members are gone when its lease ends
   * (`leaseMs`), without Redis at once.
   */
  kill (): Promise<void>
  /** Closes the instance as a deploy does. */
  close (): Promise<void>
}

/** Some instances of an application in this process, and clients. Close it at the end of the test, or write `await using`. */
export class TestCluster implements AsyncDisposable {
  /** The instances that run. */
  readonly instances: TestInstance[] = []
  readonly #options: TestClusterOptions
  readonly #wires: Wires
  readonly #clients = new Set<TestClient | FramedTestClient>()
  /** A client that does not get in would try on, and keep the process of the test alive. */
  readonly #begun = (client: TestClient | FramedTestClient): void => { this.#clients.add(client) }
  /** How many raw clients were opened: they take the instances in turn. */
  #opened = 0

  constructor (options: TestClusterOptions, wires: Wires) {
    this.#options = options
    this.#wires = wires
  }

  /** Starts one more instance. */
  async start (): Promise<TestInstance> {
    const wire = await this.#wires.add()
    const app = await this.#listen(wire)
    const { port } = app.server.address() as AddressInfo
    const gone = (): void => {
      const at = this.instances.indexOf(instance)
      if (at !== -1) this.instances.splice(at, 1)
    }
    const instance: TestInstance = {
      app,
      url: `http://127.0.0.1:${port}`,
      kill: async () => {
        gone()
        wire.cut()
        for (const connection of app.registry.all()) connection.terminate()
        await this.#close(app, wire)
        this.#wires.died()
      },
      close: async () => {
        gone()
        await this.#close(app, wire)
      }
    }
    this.instances.push(instance)
    return instance
  }

  /**
   * Opens a plain WebSocket to a path. Each call takes the next instance in turn.
   * @throws {Error} when the upgrade is refused: the text of the error has the status
   */
  async open (path: string, options: OpenOptions & { readonly instance?: TestInstance | undefined } = {}): Promise<TestClient> {
    const { instance = this.#running[this.#opened++ % this.#running.length] as TestInstance } = options
    return await TestClient.open(new URL(path, instance.url).href.replace('http', 'ws'), options, this.#begun)
  }

  /**
   * Connects the client of this package to a path. It knows the URLs of all instances, so it survives the end of one.
   * @throws {Error} when the server refuses the client for good
   */
  async connect (path: string, options: ConnectOptions = {}): Promise<FramedTestClient> {
    const urls = this.#running.map(({ url }) => new URL(path, url).href)
    return await FramedTestClient.open(urls, options, this.#begun)
  }

  /** Takes the backplane away from all instances. */
  async cutBackplane (): Promise<void> {
    await this.#wires.setOut(true)
    await this.#backplane(status => status !== 'up')
  }

  /** Brings the backplane back. Resolves when all instances are well again. */
  async mendBackplane (): Promise<void> {
    await this.#wires.setOut(false)
    await this.#backplane(status => status === 'up')
  }

  /** Closes the clients and the instances. */
  async close (): Promise<void> {
    for (const client of this.#clients) client.close()
    try {
      await Promise.all([...this.instances].map(async instance => await instance.close()))
    } finally {
      await Promise.all([...this.#clients].map(async client => await client[ending]()))
    }
  }

  async [Symbol.asyncDispose] (): Promise<void> {
    await this.close()
  }

  get #running (): readonly TestInstance[] {
    if (this.instances.length === 0) throw new Error('no instance runs: call start()')
    return this.instances
  }

  async #listen (wire: Wire): Promise<FastifyInstance> {
    let app: FastifyInstance | undefined
    try {
      app = await this.#options.app(wire.options)
      await app.listen({ port: 0, host: '127.0.0.1' })
      return app
    } catch (error) {
      // The instance is not among those that `close` ends, and what it has open would keep the process of the test alive.
      await this.#close(app, wire)
      throw error
    }
  }

  async #close (app: FastifyInstance | undefined, wire: Wire): Promise<void> {
    try {
      await app?.close()
    } finally {
      await wire.close()
    }
  }

  /** Waits without a deadline: every instance reaches the state by itself, within the deadlines of its links. */
  async #backplane (reached: (status: string) => boolean): Promise<void> {
    while (this.instances.some(({ app }) => !reached(app.registry.health().status))) await this.#wires.pause()
  }
}

/**
 * Starts instances of an application that are joined to a cluster.
 * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE when there is no Redis where one is asked for
 */
export async function testCluster (options: TestClusterOptions): Promise<TestCluster> {
  const wires = options.redis === undefined ? memoryWires() : await redisWires(options.redis)
  const cluster = new TestCluster(options, wires)
  try {
    for (let n = 0; n < (options.instances ?? 2); n++) await cluster.start()
  } catch (error) {
    await cluster.close()
    throw error
  }
  return cluster
}
