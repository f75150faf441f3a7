import type { FastifyBaseLogger } from 'fastify'
import { deferred, withDeadline } from '../../deadline.ts'
import { hasCode, WebsocketGroupsError } from '../../errors.ts'
import type { Member } from '../../types.ts'
import type { Appended, AppendTarget, Backplane, Envelope, Target } from '../backplane.ts'
import type { Keys } from './keys.ts'
import { Link } from './link/link.ts'
import { checkServer, isFinal, refused, refusedRights } from './link/server.ts'
import { keysOf, type RedisSource } from './link/source.ts'
import { RedisWriter } from './writer.ts'

const connectMs = 5_000

export interface StandaloneWriterOptions {
  readonly redis: RedisSource
  readonly keyPrefix: string
  readonly operationTimeoutMs: number
  readonly logger?: FastifyBaseLogger | undefined
}

/**
 * The part of the backplane that a process without sockets needs: one link, no subscription, no lease. The first calls wait for the link.
 */
export class StandaloneWriter implements Pick<Backplane, 'publish' | 'append' | 'count' | 'members' | 'close'> {
  readonly #keys: Keys
  readonly #link: Link
  readonly #writer: RedisWriter
  readonly #logger: FastifyBaseLogger | undefined
  /** Resolves once it is known whether there is a Redis that can be used. */
  readonly #decided = deferred()
  #refusal: Error | undefined
  #closed = false

  constructor ({ redis, keyPrefix, operationTimeoutMs, logger }: StandaloneWriterOptions) {
    this.#logger = logger
    this.#keys = keysOf(redis, keyPrefix)
    this.#link = new Link(redis, 'command', operationTimeoutMs)
    this.#writer = new RedisWriter(this.#link, this.#keys, 'reject', logger)
    this.#link.on({
      up: () => { void this.#check() },
      down: () => logger?.warn('publisher lost Redis'),
      error: error => {
        logger?.debug({ err: error }, 'publisher: Redis link error')
        if (isFinal(error)) this.#decide(refused(error))
      }
    })
    void withDeadline(this.#decided.promise, connectMs, () => {
      this.#decide(new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', `Redis could not be reached within ${connectMs} ms`))
    })
  }

  async publish (targets: readonly Target[], envelope: Envelope): Promise<number> {
    await this.#usable()
    return await this.#writer.publish(targets, envelope)
  }

  async append (targets: readonly AppendTarget[], envelope: Envelope, key?: string): Promise<Appended> {
    await this.#usable()
    return await this.#writer.append(targets, envelope, key)
  }

  async count (group: string): Promise<number> {
    await this.#usable()
    return await this.#writer.count(group)
  }

  async members (group: string): Promise<Member[]> {
    await this.#usable()
    return await this.#writer.members(group)
  }

  async close (): Promise<void> {
    this.#writer.close()
    await this.#link.close()
    this.#decide(new WebsocketGroupsError('WSG_CLOSED'))
    this.#closed = true
  }

  /** @throws {WebsocketGroupsError} why Redis cannot be used */
  async #usable (): Promise<void> {
    await this.#decided.promise
    if (this.#refusal !== undefined) throw this.#refusal
  }

  /** The link works. Only a server that cannot be used at all is refused: of any other failure the calls find out for themselves. */
  async #check (): Promise<void> {
    try {
      const { missing } = await checkServer(this.#link, this.#keys, 'publisher')
      this.#decide(missing.length === 0 ? undefined : refusedRights(missing))
    } catch (error) {
      if (hasCode(error, 'WSG_REDIS_UNSUPPORTED')) this.#decide(error as Error)
      else this.#decide(isFinal(error as Error) ? refused(error as Error) : undefined)
    }
  }

  /** A later decision counts, too: Redis may turn up when the first calls have given it up. */
  #decide (refusal: Error | undefined): void {
    if (this.#closed) return
    this.#refusal = refusal
    if (refusal !== undefined) this.#logger?.warn({ err: refusal }, 'publisher cannot use Redis')
    this.#decided.resolve()
  }
}
