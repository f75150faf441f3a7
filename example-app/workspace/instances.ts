import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** Instances on one port, each a process. In production this is the work of Kubernetes, systemd or pm2. */
export class Instances {
  readonly #settings: NodeJS.ProcessEnv
  #running: Worker[] = []
  #started = 0
  #replacing = Promise.resolve()
  #closing = false

  constructor (settings: NodeJS.ProcessEnv) {
    this.#settings = settings
    cluster.setupPrimary({ exec: fileURLToPath(new URL('instance.ts', import.meta.url)) })
    cluster.on('exit', instance => { this.#ended(instance).catch((error: unknown) => console.error(error)) })
  }

  /** Starts this many instances. Resolves when all take clients, rejects when one ends before that. */
  async start (count: number): Promise<void> {
    const started = await Promise.allSettled(Array.from({ length: count }, async () => await this.#startOne()))
    for (const one of started) if (one.status === 'rejected') throw one.reason
  }

  /** Replaces the instances one after another: starts a new one before the old one goes. A second call waits for the first. */
  async replace (): Promise<void> {
    this.#replacing = this.#replacing.then(async () => {
      for (const old of [...this.#running]) {
        await this.#startOne()
        await this.#stop(old)
      }
    }).catch((error: unknown) => console.error(error))
    await this.#replacing
  }

  async close (): Promise<void> {
    this.#closing = true
    await this.#replacing
    await Promise.all(this.#running.map(async instance => await this.#stop(instance)))
  }

  async #startOne (): Promise<void> {
    const instance = cluster.fork({ ...this.#settings, INSTANCE: `inst${++this.#started}` })
    const ended = once(instance, 'exit').then(() => { throw new Error('an instance could not start: see above why') })
    await Promise.race([once(instance, 'listening'), ended])
    ended.catch(() => {})      // From now on `#ended` deals with the end of the instance.
    this.#running.push(instance)
    if (this.#closing) await this.#stop(instance)
  }

  async #stop (instance: Worker): Promise<void> {
    this.#running = this.#running.filter(other => other !== instance)
    if (instance.isDead()) return
    instance.process.kill('SIGTERM')
    await once(instance, 'exit')
  }

  /** Starts a successor for an instance that died. */
  async #ended (instance: Worker): Promise<void> {
    if (this.#closing || !this.#running.includes(instance)) return
    this.#running = this.#running.filter(other => other !== instance)
    await this.#startOne()
  }
}
