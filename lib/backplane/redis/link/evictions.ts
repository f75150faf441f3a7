import type { FastifyBaseLogger } from 'fastify'
import { oncePerMinute } from '../../../logging.ts'
import type { Link } from './port.ts'
import { isForbidden } from './reply-errors.ts'

/** How long a look counts before Redis is asked again (milliseconds): while its policy is to evict nothing, and with any other. */
const lookMs = 60_000
const riskyLookMs = 1_000
/** How long the problem is reported after keys were dropped, even when the policy is a good one by then (milliseconds). */
const toldMs = 3_600_000

interface Memory { readonly policy: string | undefined, readonly evictedKeys: number }

/** The latest look at each master, as many partitions share one. */
const looks = new WeakMap<object, { readonly at: number, readonly memory: Promise<Memory> }>()

/**
 * Watches whether Redis drops keys when its memory is full. Nothing fails because of it: memberships are written anew, and clients are told
 * of losses. Still, the setup is wrong.
 */
export class EvictionWatch {
  readonly #link: Link
  readonly #warn: (fields: object) => void
  readonly #now: () => number
  #policy: string | undefined
  /** How many keys the server dropped since its start. */
  #counted: number | undefined
  /** The server with this count: a partition of a cluster may move to another master. */
  #master: object | undefined
  #evicted = 0
  #evictedAt = -Infinity

  /** Tests inject `now`. */
  constructor (link: Link, log: FastifyBaseLogger, now = () => performance.now()) {
    this.#link = link
    this.#now = now
    this.#warn = oncePerMinute(log, 'redis_setup_risky')
  }

  get problem (): string | undefined {
    const risky = this.#policy !== undefined && this.#policy !== 'noeviction'
    const lately = this.#now() - this.#evictedAt < toldMs
    if (!risky && !lately) return undefined
    const dropped = this.#evicted === 0 ? '' : `; it dropped ${this.#evicted} keys while this instance watched`
    return `the maxmemory-policy of Redis is ${this.#policy}: ` + (risky
      ? `when its memory is full, it may drop memberships and logs${dropped}; set noeviction`
      : `it was another one${dropped}`)
  }

  stats (): Record<string, number> {
    return { redisEvictedKeys: this.#evicted }
  }

  /**
   * Asks Redis, unless it was asked a moment ago. Resolves with how many keys it is known to have evicted while this instance watched; with
   * `undefined` where INFO is forbidden, and then no problem is reported. Never rejects.
   */
  async look (): Promise<number | undefined> {
    const { master } = this.#link
    let memory: Memory
    try {
      memory = await this.#memory()
    } catch (error) {
      // That Redis is out is reported elsewhere.
      return isForbidden(error) ? undefined : this.#evicted
    }
    const { policy, evictedKeys } = memory
    const changed = policy !== this.#policy
    this.#policy = policy
    if (master !== this.#master) this.#counted = undefined
    this.#master = master
    // The count starts anew with the server.
    const more = evictedKeys - (this.#counted === undefined ? evictedKeys : this.#counted > evictedKeys ? 0 : this.#counted)
    this.#counted = evictedKeys
    if (more > 0) {
      this.#evicted += more
      this.#evictedAt = this.#now()
    }
    const { problem } = this
    if (problem !== undefined && (changed || more > 0)) this.#warn({ policy, evictedKeys: this.#evicted, problem })
    return this.#evicted
  }

  async #memory (): Promise<Memory> {
    const { master } = this.#link
    const known = looks.get(master)
    const now = this.#now()
    if (known !== undefined && now - known.at < (this.#policy === 'noeviction' ? lookMs : riskyLookMs)) return await known.memory
    const memory = this.#ask()
    looks.set(master, { at: now, memory })
    try {
      return await memory
    } catch (error) {
      if (looks.get(master)?.memory === memory && !isForbidden(error)) looks.delete(master)
      throw error
    }
  }

  async #ask (): Promise<Memory> {
    const [memory, stats] = await this.#link.run(async redis => await Promise.all([redis.info('memory'), redis.info('stats')]))
    return {
      policy: /^maxmemory_policy:(\S+)/m.exec(memory)?.[1],
      evictedKeys: Number(/^evicted_keys:(\d+)/m.exec(stats)?.[1] ?? 0)
    }
  }
}
