import { sharedDeadline } from '../../deadline.ts'
import { WebsocketGroupsError } from '../../errors.ts'
import type { BackplaneState, Member } from '../../types.ts'
import type {
  Appended, AppendTarget, Block, Envelope, LocalInstance, LogPage, LogPosition, PresenceChange, Presences, StreamStore, Target
} from '../backplane.ts'
import { NamesClaim } from './claim.ts'
import type { Keys } from './keys.ts'
import { Link } from './link/link.ts'
import { keysOf, type RedisSource } from './link/source.ts'
import type { RedisDeployment, Revocations } from './deployment.ts'
import { Partition } from './partition.ts'
import type { PartitionOptions } from './partition-options.ts'
import { notOpen } from './problems.ts'

export interface SingleBackplaneOptions extends PartitionOptions {
  readonly redis: RedisSource
  readonly keyPrefix: string
  readonly operationTimeoutMs: number
  readonly bootTimeoutMs: number
}

/** The backplane over a single Redis, with or without replicas: one partition holds everything. */
export class SingleBackplane implements RedisDeployment {
  readonly #options: SingleBackplaneOptions
  readonly #keys: Keys
  #partition: Partition | undefined
  #claim: NamesClaim | undefined
  /** Whether other processes were found to divide the keys otherwise. */
  #refused = false
  #booted = false
  #closed = false

  /** @throws {WebsocketGroupsError} WSG_OPTION_INVALID for a URL or a database number that cannot be */
  constructor (options: SingleBackplaneOptions) {
    this.#options = options
    this.#keys = keysOf(options.redis, options.keyPrefix)
  }

  get state (): BackplaneState {
    return this.#claim?.refusal === undefined ? this.#partition?.state ?? 'down' : 'down'
  }

  get problems (): readonly string[] {
    const refusal = this.#claim?.refusal
    return refusal === undefined ? this.#partition?.problems ?? [notOpen] : [refusal.message]
  }

  async start (local: LocalInstance): Promise<void> {
    const { redis, operationTimeoutMs, bootTimeoutMs } = this.#options
    const links = { command: new Link(redis, 'command', operationTimeoutMs), subscribe: new Link(redis, 'subscribe', operationTimeoutMs) }
    links.command.on({ up: () => followSuccessor(links) })
    const partition = this.#partition = new Partition(links, this.#options, this.#keys, local)
    const claim = this.#claim = new NamesClaim(links.command, this.#keys, 1, () => this.#claimTried(local))
    // Claim once the server was checked, and again when the lease was gone, because the claim may be gone, too.
    partition.lease.on({ resumed: () => { void claim.renew() } })
    const inTime = sharedDeadline(bootTimeoutMs)
    try {
      await partition.boot(bootTimeoutMs)
      // Tried again when it comes too late, or fails.
      await inTime(claim.make(), () => undefined)
      if (claim.refusal !== undefined) throw claim.refusal
      this.#booted = true
    } catch (error) {
      this.#partition = this.#claim = undefined
      claim.close()
      await partition.close()
      throw error
    }
  }

  /** By the clock of Redis. */
  now (): number {
    return this.#partition?.clock.now() ?? Date.now()
  }

  // Every join calls this and `syncMember`, and every message `publish` or `append`. They make no promises of their own: `RedisBackplane`
  // has one already, which rejects when this throws.
  subscribe (target: Target): Promise<void> {
    return this.#open.subscribe(target)
  }

  unsubscribe (target: Target): void {
    this.#partition?.subscriptions.unsubscribe(this.#keys.channel(target))
  }

  interrupted (target: Target): boolean {
    return this.#partition?.subscriptions.interrupted(this.#keys.channel(target)) ?? false
  }

  publish (targets: readonly Target[], envelope: Envelope): Promise<number> {
    return this.#open.writer.publish(targets, envelope)
  }

  append (targets: readonly AppendTarget[], envelope: Envelope, key?: string): Promise<Appended> {
    return this.#open.writer.append(targets, envelope, key)
  }

  async history (group: string, since: LogPosition | undefined, limit: number): Promise<LogPage> {
    return await this.#open.history(group, since, limit)
  }

  get streams (): StreamStore {
    return this.#open.writer.streams
  }

  position (group: string): LogPosition | undefined {
    return this.#partition?.position(group)
  }

  async secret (candidate: string): Promise<string> {
    return await this.#open.writer.secret(candidate)
  }

  syncMember (group: string, connectionId: string): Promise<void> {
    return this.#open.members.sync(group, connectionId)
  }

  async syncUser (userId: string): Promise<number> {
    return await this.#open.users.sync(userId)
  }

  async block (name: string, forMs: number): Promise<boolean> {
    return await this.#open.blocks.set(name, forMs)
  }

  async blocks (): Promise<readonly Block[] | undefined> {
    return await this.#open.blocks.list()
  }

  revocationsOf (): Revocations {
    return this.#open.writer.revocations
  }

  async instances (): Promise<ReadonlyMap<string, boolean>> {
    return await this.#open.writer.instances()
  }

  async settle (kind: Presences, names: readonly string[] | undefined): Promise<readonly PresenceChange[]> {
    const { users, occupancy } = this.#open
    if (kind === 'user') await users.stored()
    return await occupancy.settle(kind, names)
  }

  async count (group: string): Promise<number> {
    return await this.#open.writer.count(group)
  }

  async members (group: string): Promise<Member[]> {
    return await this.#open.writer.members(group)
  }

  stats (): Record<string, number> {
    return this.#partition?.stats() ?? {}
  }

  async close (): Promise<void> {
    this.#closed = true
    this.#claim?.close()
    await this.#partition?.close()
  }

  #claimTried (local: LocalInstance): void {
    const refused = this.#claim?.refusal !== undefined
    if (refused === this.#refused) return
    this.#refused = refused
    if (this.#booted) local.stateChanged()
  }

  get #open (): Partition {
    if (this.#partition !== undefined && !this.#closed) return this.#partition
    throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', notOpen)
  }
}

/**
 * Subscribes anew where the command link leads. After a failover by name, the old master may go on as a replica, whose subscribers get
 * messages only while it is in step with the new master.
 */
function followSuccessor ({ command, subscribe }: { readonly command: Link, readonly subscribe: Link }): void {
  const [successor, present] = [command.address?.host, subscribe.address?.host]
  // At boot both links may have reached the same server under different addresses of its name.
  if (command.connection > 1 && present !== undefined && successor !== undefined && present !== successor) subscribe.reset(true)
}
