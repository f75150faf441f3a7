import type { BackplaneState, Member } from '../../types.ts'
import type {
  Appended, AppendTarget, Backplane, Block, Envelope, LocalInstance, LogPage, LogPosition, PresenceChange, Presences, Revocation,
  StreamStore, Target
} from '../backplane.ts'
import { ClusterBackplane } from './router.ts'
import type { RedisDeployment } from './deployment.ts'
import { clusterOf, clusterSource, type ClusterSource } from './link/cluster/source.ts'
import { optionsOf, type RedisSource } from './link/source.ts'
import { ClusterModeError } from './link/server.ts'
import type { PublisherOptions } from '../../options/types.ts'
import { SingleBackplane, type SingleBackplaneOptions } from './single.ts'

export interface RedisBackplaneOptions extends Omit<SingleBackplaneOptions, 'redis'> {
  readonly redis: PublisherOptions['redis']
}

/**
 * The backplane of instances that share a Redis or a Redis Cluster. Envelopes travel by pub/sub; memberships are kept in hashes, under
 * leases. A single server that turns out to be a node of a cluster is used as a cluster.
 */
export class RedisBackplane implements Backplane {
  readonly name = 'redis'
  readonly #options: RedisBackplaneOptions
  #deployment: RedisDeployment

  /** @throws {WebsocketGroupsError} WSG_OPTION_INVALID: the URL, the database or the `keyPrefix` is not valid */
  constructor (options: RedisBackplaneOptions) {
    this.#options = options
    const { redis } = options
    const source = clusterSource(redis)
    this.#deployment = source === undefined
      ? new SingleBackplane({ ...options, redis: redis as RedisSource })
      : this.#cluster(source, options.bootTimeoutMs)
  }

  get state (): BackplaneState {
    return this.#deployment.state
  }

  get problems (): readonly string[] {
    return this.#deployment.problems
  }

  async start (local: LocalInstance): Promise<void> {
    const { redis, bootTimeoutMs } = this.#options
    const startedAt = performance.now()
    try {
      await this.#deployment.start(local)
    } catch (error) {
      if (!(error instanceof ClusterModeError)) throw error
      const leftMs = Math.max(0, bootTimeoutMs - (performance.now() - startedAt))
      this.#deployment = this.#cluster(clusterOf(optionsOf(redis as RedisSource)), leftMs)
      await this.#deployment.start(local)
    }
  }

  /** By the clock of Redis. */
  now (): number {
    return this.#deployment.now()
  }

  async subscribe (target: Target): Promise<void> {
    await this.#deployment.subscribe(target)
  }

  unsubscribe (target: Target): void {
    this.#deployment.unsubscribe(target)
  }

  interrupted (target: Target): boolean {
    return this.#deployment.interrupted(target)
  }

  async publish (targets: readonly Target[], envelope: Envelope): Promise<number | undefined> {
    return await this.#deployment.publish(targets, envelope)
  }

  async append (targets: readonly AppendTarget[], envelope: Envelope, key?: string): Promise<Appended> {
    return await this.#deployment.append(targets, envelope, key)
  }

  async history (group: string, since: LogPosition | undefined, limit: number): Promise<LogPage> {
    return await this.#deployment.history(group, since, limit)
  }

  get streams (): StreamStore {
    return this.#deployment.streams
  }

  position (group: string): LogPosition | undefined {
    return this.#deployment.position(group)
  }

  async secret (candidate: string): Promise<string> {
    return await this.#deployment.secret(candidate)
  }

  async revoke (group: string, names: readonly string[], revocation: Revocation, forMs: number): Promise<void> {
    await this.#deployment.revocationsOf(group).set(group, names, revocation, forMs)
  }

  async revoked (group: string, names: readonly string[]): Promise<Revocation | undefined> {
    return await this.#deployment.revocationsOf(group).latest(group, names)
  }

  async syncMember (group: string, connectionId: string): Promise<void> {
    await this.#deployment.syncMember(group, connectionId)
  }

  async syncUser (userId: string): Promise<number> {
    return await this.#deployment.syncUser(userId)
  }

  async block (name: string, forMs: number): Promise<boolean> {
    return await this.#deployment.block(name, forMs)
  }

  async blocks (): Promise<readonly Block[] | undefined> {
    return await this.#deployment.blocks()
  }

  async instances (): Promise<ReadonlyMap<string, boolean>> {
    return await this.#deployment.instances()
  }

  async settle (kind: Presences, names: readonly string[] | undefined): Promise<readonly PresenceChange[]> {
    return await this.#deployment.settle(kind, names)
  }

  async count (group: string): Promise<number> {
    return await this.#deployment.count(group)
  }

  async members (group: string): Promise<Member[]> {
    return await this.#deployment.members(group)
  }

  stats (): Readonly<Record<string, number>> {
    return this.#deployment.stats()
  }

  async close (): Promise<void> {
    await this.#deployment.close()
  }

  #cluster (source: ClusterSource, bootTimeoutMs: number): ClusterBackplane {
    return new ClusterBackplane({ ...this.#options, cluster: source, bootTimeoutMs })
  }
}
