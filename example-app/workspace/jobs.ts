import { Redis } from 'ioredis'
import { setTimeout as sleep } from 'node:timers/promises'

interface Job { readonly userId: string, readonly room: string }

const key = 'workspace:jobs'
const retryMs = 1_000

/** A queue of work for the process in worker.ts. It stands for BullMQ, pg-boss, or what else you have. */
export class Jobs {
  readonly #redis: Redis

  constructor (url: string) {
    // A worker may wait for its next job for as long as there is none, outages included.
    this.#redis = new Redis(url, { maxRetriesPerRequest: null })
  }

  async add (job: Job): Promise<void> {
    await this.#redis.lpush(key, JSON.stringify(job))
  }

  /** Does one job after another. One that fails, as while Redis does not answer, is done again after the others. */
  async work (doOne: (job: Job) => Promise<void>): Promise<never> {
    for (;;) {
      const [, job = ''] = await this.#redis.brpop(key, 0) ?? []
      await doOne(JSON.parse(job) as Job).catch(async (error: unknown) => {
        console.error(error)
        await sleep(retryMs)
        await this.#redis.lpush(key, job)
      })
    }
  }

  close (): void {
    this.#redis.disconnect()
  }
}
