import { LoggedPublish } from './delivery/logged-publish.ts'
import { hasCode, WebsocketGroupsError } from './errors.ts'
import { GroupLogs } from './options/group-logs.ts'
import { EnvelopeFactory, everyone, groupTargets, userTarget } from './delivery/envelopes.ts'
import type { ResolvedPublisherOptions } from './options/resolve.ts'
import type { BroadcastOptions, BroadcastResult, Data, Member, Publisher } from './types.ts'
import type { Target } from './backplane/backplane.ts'
import { Keys } from './backplane/redis/keys.ts'
import { AppendQueue } from './backplane/redis/log/append-queue.ts'
import { Link } from './backplane/redis/link/link.ts'
import { publish } from './backplane/redis/publish.ts'
import { readCount, readMembers } from './backplane/redis/membership/records.ts'
import { checkServer, isFinal, refused } from './backplane/redis/link/server.ts'

const connectMs = 5_000

/** Broadcasts from a process without sockets: one link, no subscription, no lease. The first calls wait for the link. */
export class GroupPublisher implements Publisher {
  readonly #envelopes = new EnvelopeFactory()
  readonly #keys: Keys
  readonly #link: Link
  readonly #appends: AppendQueue
  readonly #logged: LoggedPublish
  /** Resolves when it is known whether there is a Redis; the first calls wait for that. */
  readonly #tried: Promise<void>
  #refusal: Error | undefined
  #decide: (refusal?: Error) => void

  constructor ({ redis, keyPrefix, operationTimeoutMs, logger, log, logs }: ResolvedPublisherOptions) {
    this.#keys = new Keys(keyPrefix)
    let tried = (): void => {}
    this.#tried = new Promise(resolve => { tried = resolve })
    const timer = setTimeout(() => this.#decide(new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', `no Redis within ${connectMs} ms`)), connectMs)
    this.#decide = refusal => {
      clearTimeout(timer)
      this.#refusal = refusal
      if (refusal !== undefined) logger?.warn({ err: refusal }, 'publisher cannot use Redis')
      tried()
    }
    this.#link = new Link(redis, 'command', operationTimeoutMs, {
      up: () => {
        this.#appends.resume()
        // Only a server that cannot be used is refused: after any other failure the calls find out for themselves.
        checkServer(this.#link).then(() => this.#decide(), (error: Error) => this.#decide(hasCode(error, 'WSG_REDIS_UNSUPPORTED') ? error : undefined))
      },
      down: () => logger?.warn('publisher lost Redis'),
      error: error => {
        logger?.debug({ err: error }, 'publisher: Redis link error')
        if (isFinal(error)) this.#decide(refused(error))
      }
    })
    this.#appends = new AppendQueue(this.#link, this.#keys, 'reject', operationTimeoutMs)
    this.#logged = new LoggedPublish({
      append: async (group, envelope, log, key) => await this.#appends.append(group, envelope, log, key),
      publish: async (targets, envelope) => await publish(this.#link, this.#keys, targets, envelope)
    }, new GroupLogs({ log, logs }))
  }

  async broadcastToGroup (group: string | readonly string[], data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#broadcast('group', groupTargets(group), data, options)
  }

  async broadcastToAll (data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#broadcast('all', everyone, data, options)
  }

  async sendToUser (userId: string, data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#broadcast('user', [userTarget(userId)], data, options)
  }

  async groupCount (group: string): Promise<number> {
    await this.#ready()
    return await readCount(this.#link, this.#keys, group)
  }

  async members (group: string): Promise<readonly Member[]> {
    await this.#ready()
    return await readMembers(this.#link, this.#keys, group)
  }

  async close (): Promise<void> {
    this.#appends.close()
    await this.#link.close()
    this.#decide(new WebsocketGroupsError('WSG_CLOSED'))
  }

  async [Symbol.asyncDispose] (): Promise<void> {
    await this.close()
  }

  async #ready (): Promise<void> {
    await this.#tried
    if (this.#refusal !== undefined) throw this.#refusal
  }

  async #broadcast (kind: Target['kind'], targets: readonly Target[], data: Data, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    const envelope = this.#envelopes.message(targets, data, options)
    const logged = kind === 'group' && this.#logged.usesLog(targets, options)
    await this.#ready()
    if (logged) return { localRecipients: 0, ...await this.#logged.append(targets, envelope, options) }
    const instances = targets.length === 0 ? 0 : await publish(this.#link, this.#keys, targets, envelope)
    return { scope: 'cluster', localRecipients: 0, instances }
  }
}
