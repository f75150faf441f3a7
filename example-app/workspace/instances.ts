import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** Instances on one port, each a process. In production this is the work of Kubernetes, systemd or pm2. */
export class Instances {
  readonly #settings: NodeJS.ProcessEnv
  #running: Worker[] = []
  #started = 0
  #replacing = Promise.resolve()
  /** Settles when the successors of instances that died are there. */
  #succeeding: Promise<unknown> = Promise.resolve()
  /** The instance whose successor a deploy starts. */
  #leaving: Worker | undefined
  #closing = false
  /** How long an instance may take to end before it is killed. Longer than the time after which it gives up itself. */
  readonly #endMs: number

  constructor (settings: NodeJS.ProcessEnv, endMs = 10_000) {
    this.#settings = settings
    this.#endMs = endMs
    cluster.setupPrimary({ exec: fileURLToPath(new URL('instance.ts', import.meta.url)) })
    cluster.on('exit', instance => {
      const succeeded = this.#ended(instance).catch((error: unknown) => console.error(error))
      this.#succeeding = Promise.all([this.#succeeding, succeeded])
    })
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
        if (old.isDead()) continue      // `#ended` starts its successor.
        this.#leaving = old
        await this.#startOne()
        await this.#stop(old)
      }
    }).catch((error: unknown) => console.error(error)).finally(() => { this.#leaving = undefined })
    await this.#replacing
  }

  async close (): Promise<void> {
    this.#closing = true
    await Promise.all([this.#replacing, this.#succeeding])
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
    const ended = once(instance, 'exit')
    instance.process.kill('SIGTERM')
    const timer = setTimeout(() => instance.process.kill('SIGKILL'), this.#endMs)
    await ended.finally(() => clearTimeout(timer))
  }

  /** Starts a successor for an instance that died, unless a deploy does that already. */
  async #ended (instance: Worker): Promise<void> {
    if (this.#closing || !this.#running.includes(instance)) return
    this.#running = this.#running.filter(other => other !== instance)
    if (instance !== this.#leaving) await this.#startOne()
  }
}
