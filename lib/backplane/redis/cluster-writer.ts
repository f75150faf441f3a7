import type { FastifyBaseLogger } from 'fastify'
import type { Member } from '../../types.ts'
import type { Appended, AppendTarget, Envelope, LogPage, LogPosition, StreamStore, Target } from '../backplane.ts'
import type { RevocationStore } from './membership/revocations.ts'
import { partitionOf } from './hash-tags.ts'
import type { Keys } from './keys.ts'
import type { ClusterLinks } from './link/cluster/cluster.ts'
import type { RoutedLink } from './link/cluster/routed-link.ts'
import type { Waiting, WhenDown } from './log/append-queue.ts'
import { livingIds } from './membership/living.ts'
import { OccupancyStore } from './membership/occupancy.ts'
import { appendParts, publishParts, type Part } from './parts.ts'
import { RedisWriter } from './writer.ts'

/** The partition of everything that belongs to no group, no user and no instance. */
const commonPartition = 0

/**
 * Carries out calls on a Redis Cluster, for instances and for publishers. A call that concerns several partitions is sent to each of them:
 * to all of its targets in one partition or to none, and in no order between partitions.
 */
export class ClusterWriter {
  readonly streams: StreamStore = {
    write: async write => await this.#ofGroup(write.group).streams.write(write),
    read: async (name, from) => await this.#ofGroup(name.group).streams.read(name, from),
    list: async group => await this.#ofGroup(group).streams.list(group)
  }

  readonly #links: ClusterLinks
  readonly #keys: readonly Keys[]
  readonly #whenDown: WhenDown
  readonly #log: FastifyBaseLogger | undefined
  /** The writers made so far, by partition. */
  readonly #writers: Array<RedisWriter | undefined>
  /** The limits on appends that wait are for all partitions together. */
  readonly #waiting: Waiting = { messages: 0, bytes: 0 }

  /** `keys`: one for each partition. */
  constructor (links: ClusterLinks, keys: readonly Keys[], whenDown: WhenDown, log: FastifyBaseLogger | undefined) {
    this.#links = links
    this.#keys = keys
    this.#whenDown = whenDown
    this.#log = log
    this.#writers = keys.map(() => undefined)
  }

  partitionOf ({ kind, name }: Target): number {
    return kind === 'all' ? commonPartition : partitionOf(name, this.#keys.length)
  }

  /** The writer of one partition. */
  of (partition: number): RedisWriter {
    const writer = this.#writers[partition] ??= new RedisWriter(...this.#accessTo(partition), this.#whenDown, this.#log, this.#waiting)
    return writer
  }

  /** As `Backplane.publish`. */
  async publish (targets: readonly Target[], envelope: Envelope): Promise<number> {
    return await publishParts(this.#parts(targets, target => this.partitionOf(target)), envelope)
  }

  /** As `Backplane.append`. */
  async append (targets: readonly AppendTarget[], envelope: Envelope, key?: string): Promise<Appended> {
    const parts = this.#parts(targets, ({ group }) => partitionOf(group, this.#keys.length))
    const [only] = parts
    if (parts.length === 1 && only !== undefined) return await only.writer.append(targets, envelope, key)
    return await appendParts(parts, envelope, key)
  }

  /** As `Backplane.history`. */
  async history (group: string, since: LogPosition | undefined, limit: number): Promise<LogPage> {
    return await this.#ofGroup(group).history(group, since, limit)
  }

  /** As `Backplane.secret`. */
  async secret (candidate: string): Promise<string> {
    return await this.of(commonPartition).secret(candidate)
  }

  /** The store that knows who was put out of the group. */
  revocationsOf (group: string): RevocationStore {
    return this.#ofGroup(group).revocations
  }

  /** As `Backplane.block`. */
  async block (name: string, forMs: number): Promise<boolean> {
    return await this.of(commonPartition).block(name, forMs)
  }

  /** As `Backplane.count`. */
  async count (group: string): Promise<number> {
    return await this.#ofGroup(group).count(group)
  }

  /** As `Backplane.members`. */
  async members (group: string): Promise<Member[]> {
    return await this.#ofGroup(group).members(group)
  }

  /** As `Backplane.instances`. */
  async instances (): Promise<ReadonlyMap<string, boolean>> {
    const [link, keys] = this.#accessTo(commonPartition)
    const inboxes = this.#divide(await livingIds(link, keys), id => partitionOf(id, this.#keys.length))
    const reached = await Promise.all([...inboxes].map(async ([partition, some]) => {
      const [link, keys] = this.#accessTo(partition)
      const channels = some.map(name => keys.channel({ kind: 'instance', name }))
      const counts = await link.run(async redis => await redis.call('PUBSUB', 'SHARDNUMSUB', ...channels)) as unknown[]
      return some.map((id, index) => [id, Number(counts[2 * index + 1]) > 0] as const)
    }))
    return new Map(reached.flat())
  }

  stats (): Array<Record<string, number>> {
    return this.#writers.filter(writer => writer !== undefined).map(writer => writer.stats())
  }

  /** Rejects the appends that still wait; the links stay open. */
  close (): void {
    for (const writer of this.#writers) writer?.close()
  }

  /** The store that knows which groups and users of one partition were reported as present. */
  occupancyOf (partition: number): OccupancyStore {
    return new OccupancyStore(...this.#accessTo(partition))
  }

  get partitions (): number {
    return this.#keys.length
  }

  #accessTo (partition: number): [link: RoutedLink, keys: Keys] {
    const [link, keys] = [this.#links.command[partition], this.#keys[partition]]
    if (link === undefined || keys === undefined) throw new RangeError(`there is no partition ${partition}`)
    return [link, keys]
  }

  #ofGroup (group: string): RedisWriter {
    return this.of(partitionOf(group, this.#keys.length))
  }

  #parts<One> (targets: readonly One[], partitionOf: (target: One) => number): Array<Part<One>> {
    return Array.from(this.#divide(targets, partitionOf), ([partition, targets]) => ({ writer: this.of(partition), targets }))
  }

  #divide<One> (targets: readonly One[], partitionOf: (target: One) => number): Map<number, One[]> {
    const parts = new Map<number, One[]>()
    for (const target of targets) {
      const partition = partitionOf(target)
      const part = parts.get(partition)
      if (part === undefined) parts.set(partition, [target])
      else part.push(target)
    }
    return parts
  }
}
