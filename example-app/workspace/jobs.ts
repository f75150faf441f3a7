import { Redis } from 'ioredis'

export interface Job { readonly userId: string, readonly room: string }

const key = 'workspace:jobs'

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

  /** Resolves with the next job, when there is one. */
  async next (): Promise<Job> {
    const [, job = ''] = await this.#redis.brpop(key, 0) ?? []
    return JSON.parse(job) as Job
  }

  close (): void {
    this.#redis.disconnect()
  }
}
