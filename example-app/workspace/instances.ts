import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** Instances on one port, each a process. In production this is the work of Kubernetes, systemd or pm2. */
export class Instances {
  readonly #settings: NodeJS.ProcessEnv
  #running: Worker[] = []
  #started = 0

  constructor (settings: NodeJS.ProcessEnv) {
    this.#settings = settings
    cluster.setupPrimary({ exec: fileURLToPath(new URL('instance.ts', import.meta.url)) })
    cluster.on('exit', instance => { void this.#ended(instance) })
  }

  /** Resolves when so many take clients. */
  async start (count: number): Promise<void> {
    const started = Array.from({ length: count }, () => this.#fork())
    await Promise.all(started.map(async instance => await once(instance, 'listening')))
  }

  /** For each, starts a new one before the old one goes. */
  async replace (): Promise<void> {
    for (const old of [...this.#running]) {
      await this.start(1)
      await this.#stop(old)
    }
  }

  async close (): Promise<void> {
    await Promise.all(this.#running.map(async instance => await this.#stop(instance)))
  }

  #fork (): Worker {
    const instance = cluster.fork({ ...this.#settings, INSTANCE: `inst${++this.#started}` })
    this.#running.push(instance)
    return instance
  }

  async #stop (instance: Worker): Promise<void> {
    this.#running = this.#running.filter(other => other !== instance)
    instance.process.kill('SIGTERM')
    await once(instance, 'exit')
  }

  /** One that died gets a successor. */
  async #ended (instance: Worker): Promise<void> {
    if (!this.#running.includes(instance)) return
    this.#running = this.#running.filter(other => other !== instance)
    await this.start(1)
  }
}
