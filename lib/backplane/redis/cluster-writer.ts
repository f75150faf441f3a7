import type { FastifyBaseLogger } from 'fastify'
import { hasCode, WebsocketGroupsError } from '../../errors.ts'
import type { Member } from '../../types.ts'
import type { Appended, AppendTarget, Envelope, LogPage, LogPosition, StreamStore, Target } from '../backplane.ts'
import type { RevocationStore } from './membership/revocations.ts'
import { partitionOf } from './hash-tags.ts'
import type { Keys } from './keys.ts'
import type { ClusterLinks } from './link/cluster/cluster.ts'
import type { RoutedLink } from './link/cluster/routed-link.ts'
import type { Waiting, WhenDown } from './log/append-queue.ts'
import { livingInstances } from './membership/living.ts'
import { OccupancyStore } from './membership/occupancy.ts'
import { RedisWriter } from './writer.ts'

/** Where everything is that belongs to no group, no user and no instance. */
const commonPartition = 0

/**
 * What callers ask of a Redis Cluster, whether their process holds sockets or not. What goes to several partitions is sent to each of them:
 * to all targets of one partition or to none, and in no order between partitions.
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
  /** By partition, those that were used. */
  readonly #writers: Array<RedisWriter | undefined>
  /** The limits on appends that wait are for all partitions together. */
  readonly #waiting: Waiting = { messages: 0, bytes: 0 }

  /** `keys`: of each partition. */
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
    const writer = this.#writers[partition] ??= new RedisWriter(...this.#way(partition), this.#whenDown, this.#log, this.#waiting)
    return writer
  }

  /** As `Backplane.publish`. */
  async publish (targets: readonly Target[], envelope: Envelope): Promise<number> {
    const parts = this.#divide(targets, target => this.partitionOf(target))
    const taken = await settle([...parts].map(async ([partition, some]) => await this.of(partition).publish(some, envelope)))
    return Math.max(0, ...taken)
  }

  /** As `Backplane.append`. */
  async append (targets: readonly AppendTarget[], envelope: Envelope, key?: string): Promise<Appended> {
    const parts = [...this.#divide(targets, ({ group }) => partitionOf(group, this.#keys.length))]
    const [only] = parts
    if (only !== undefined && parts.length === 1) return await this.of(only[0]).append(targets, envelope, key)
    const logged = parts.filter(([, some]) => some.some(isLogged))
    const appended = await settle(logged.map(async ([partition, some]) => await this.of(partition).append(some, envelope, key)))
    const duplicate = appended.every(one => one.duplicate)
    // Partitions where none of the groups keeps a log: where all others had the message already, so had they.
    const others = duplicate ? [] : parts.filter(([, some]) => !some.some(isLogged))
    await settle(others.map(async ([partition, some]) => {
      await this.of(partition).publish(some.map(({ group }) => ({ kind: 'group', name: group })), envelope)
    }), appended.length > 0)
    return {
      positions: new Map(appended.flatMap(({ positions }) => [...positions])),
      queued: appended.some(({ queued }) => queued),
      duplicate
    }
  }

  /** As `Backplane.history`. */
  async history (group: string, since: LogPosition | undefined, limit: number): Promise<LogPage> {
    return await this.#ofGroup(group).history(group, since, limit)
  }

  /** As `Backplane.secret`. */
  async secret (candidate: string): Promise<string> {
    return await this.of(commonPartition).secret(candidate)
  }

  /** Who was put out of the group. */
  revocationsOf (group: string): RevocationStore {
    return this.#ofGroup(group).revocations
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
    const [link, keys] = this.#way(commonPartition)
    const ids = [...(await livingInstances(link, keys)).keys()]
    const inboxes = this.#divide(ids, id => partitionOf(id, this.#keys.length))
    const reached = await Promise.all([...inboxes].map(async ([partition, some]) => {
      const [link, keys] = this.#way(partition)
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

  /** Which groups or users of one partition were told to be there. */
  occupancyOf (partition: number): OccupancyStore {
    return new OccupancyStore(...this.#way(partition))
  }

  get partitions (): number {
    return this.#keys.length
  }

  #way (partition: number): [link: RoutedLink, keys: Keys] {
    const [link, keys] = [this.#links.command[partition], this.#keys[partition]]
    if (link === undefined || keys === undefined) throw new RangeError(`there is no partition ${partition}`)
    return [link, keys]
  }

  #ofGroup (group: string): RedisWriter {
    return this.of(partitionOf(group, this.#keys.length))
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

function isLogged ({ log }: AppendTarget): boolean {
  return log !== undefined
}

/**
 * Resolves when all do. Where some failed and others did not, or `begun` says that a part was sent before, it is not true that nothing was
 * sent.
 */
async function settle<Value> (work: Array<Promise<Value>>, begun = false): Promise<Value[]> {
  const results = await Promise.allSettled(work)
  const failures = results.filter(result => result.status === 'rejected').map(({ reason }) => reason as Error)
  const [failure] = failures
  if (failure === undefined) return results.filter(result => result.status === 'fulfilled').map(({ value }) => value)
  const unknown = failures.find(error => hasCode(error, 'WSG_TIMEOUT'))
  if (unknown !== undefined) throw unknown
  if (failures.length === results.length && !begun) throw failure
  throw new WebsocketGroupsError('WSG_TIMEOUT', `sent to some of the groups only: ${failure.message}`, { cause: failure })
}
