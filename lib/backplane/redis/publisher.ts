import { WebsocketGroupsError } from '../../errors.ts'
import { exceptIds, Sender } from '../../sender.ts'
import { everyone, groupTargets, userTarget } from '../../targets.ts'
import type { PublisherOptions } from '../../plugin-options.ts'
import type { BroadcastOptions, BroadcastResult, Data, Member, Publisher } from '../../types.ts'
import type { Target } from '../backplane.ts'
import { Keys } from './keys.ts'
import { Link } from './link.ts'
import { publish } from './publish.ts'
import { readCount, readMembers } from './read.ts'
import { inspect, isFinal, refused } from './server-check.ts'

const connectMs = 5_000

/** Broadcasts from a process without sockets: one link, no subscription, no lease. The first calls wait for the link. */
export class RedisPublisher implements Publisher {
  readonly #sender = new Sender()
  readonly #keys: Keys
  readonly #link: Link
  readonly #connected: Promise<void>
  #settle: ((error?: Error) => void) | undefined

  constructor ({ redis, keyPrefix = 'wsg:', operationTimeoutMs = 500, logger }: PublisherOptions) {
    this.#keys = new Keys(keyPrefix)
    this.#connected = new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#settle?.(new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', `no Redis within ${connectMs} ms`)), connectMs)
      this.#settle = error => {
        clearTimeout(timer)
        this.#settle = undefined
        if (error === undefined) resolve()
        else reject(error)
      }
    })
    this.#connected.catch((error: Error) => logger?.warn({ err: error }, 'publisher could not connect'))
    this.#link = new Link(redis, 'command', operationTimeoutMs, {
      up: () => { inspect(this.#link).then(() => this.#settle?.(), (error: Error) => this.#settle?.(error)) },
      down: () => logger?.warn('publisher lost Redis'),
      error: error => {
        logger?.debug({ err: error }, 'publisher: Redis link error')
        if (isFinal(error)) this.#settle?.(refused(error))
      }
    })
  }

  async broadcastToGroup (group: string | readonly string[], data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#broadcast(groupTargets(group), data, options)
  }

  async broadcastToAll (data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#broadcast(everyone, data, options)
  }

  async sendToUser (userId: string, data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#broadcast([userTarget(userId)], data, options)
  }

  async groupCount (group: string): Promise<number> {
    await this.#connected
    return await readCount(this.#link, this.#keys, group)
  }

  async members (group: string): Promise<readonly Member[]> {
    await this.#connected
    return await readMembers(this.#link, this.#keys, group)
  }

  async close (): Promise<void> {
    this.#settle?.(new WebsocketGroupsError('WSG_CLOSED'))
    await this.#link.close()
  }

  async [Symbol.asyncDispose] (): Promise<void> {
    await this.close()
  }

  async #broadcast (targets: readonly Target[], data: Data, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    const envelope = this.#sender.message(targets, data, exceptIds(options.except))
    const payload = Buffer.from(envelope.payload)             // the caller may reuse its bytes while the link is awaited
    await this.#connected
    const instances = targets.length === 0 ? 0 : await publish(this.#link, this.#keys, targets, { ...envelope, payload })
    return { scope: 'cluster', localRecipients: 0, instances }
  }
}
