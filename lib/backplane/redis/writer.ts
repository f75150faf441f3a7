import type { FastifyBaseLogger } from 'fastify'
import type { Member } from '../../types.ts'
import type { Appended, AppendTarget, Envelope, LogPage, LogPosition, Target } from '../backplane.ts'
import { chunks } from './batching.ts'
import type { Keys } from './keys.ts'
import type { Link } from './link/port.ts'
import { AppendQueue, type Waiting, type WhenDown } from './log/append-queue.ts'
import { readPage } from './log/page.ts'
import { SettingsDifferences } from './log/settings.ts'
import { MemberLists } from './membership/lists.ts'
import { livingInstances } from './membership/living.ts'
import { BlockStore } from './membership/blocks.ts'
import { mending } from './link/mending.ts'
import { readCount } from './membership/records.ts'
import { RevocationStore } from './membership/revocations.ts'
import { appendParts, publishParts, type Part } from './parts.ts'
import { publish } from './publish.ts'
import { RedisStreams } from './streams/store.ts'

/** How many targets one script call takes at most: Redis does nothing else meanwhile, for some 10 ms with as many logs. */
const maxTargets = 1_000
/** Renewed by every read; each instance with framed clients reads it once a minute. */
const secretTtlSeconds = 86_400

/** What callers ask of Redis over one link, whether their process holds sockets or not: to publish, to append to logs, to read. */
export class RedisWriter {
  readonly streams: RedisStreams
  readonly #link: Link
  readonly #keys: Keys
  readonly #appends: AppendQueue
  readonly #lists: MemberLists
  readonly revocations: RevocationStore
  /** Logs whose settings differ between processes: no fault, but operators should know. */
  readonly differences: SettingsDifferences

  /** `waiting`: counts the appends of all writers that have one limit together. */
  constructor (link: Link, keys: Keys, whenDown: WhenDown, log: FastifyBaseLogger | undefined, waiting?: Waiting) {
    this.#link = link
    this.#keys = keys
    this.#lists = new MemberLists(link, keys)
    this.revocations = new RevocationStore(link, keys)
    this.streams = new RedisStreams(link, keys)
    this.differences = new SettingsDifferences(log)
    this.#appends = new AppendQueue(link, keys, whenDown, this.differences, waiting)
  }

  /** As `Backplane.publish`; to more than 1,000 targets in parts. */
  publish (targets: readonly Target[], envelope: Envelope): Promise<number> {
    if (targets.length > maxTargets) return publishParts(this.#parts(targets), envelope)
    return publish(this.#link, this.#keys, targets, envelope)
  }

  /** As `Backplane.append`; to more than 1,000 groups in parts. */
  append (targets: readonly AppendTarget[], envelope: Envelope, key?: string): Promise<Appended> {
    if (targets.length > maxTargets) return appendParts(this.#parts(targets), envelope, key)
    return this.#appends.append(targets, envelope, key)
  }

  /** As `Backplane.history`. */
  async history (group: string, since: LogPosition | undefined, limit: number): Promise<LogPage> {
    const { difference, ...page } = await readPage(this.#link, this.#keys, group, since, limit)
    if (difference !== undefined) this.differences.add(group, difference)
    return page
  }

  /** As `Backplane.secret`. */
  async secret (candidate: string): Promise<string> {
    const { secret } = this.#keys
    return await mending(this.#link, () => [[secret, 'STRLEN']], async () => await this.#link.run(async redis => {
      if (await redis.set(secret, candidate, 'EX', secretTtlSeconds, 'NX') === 'OK') return candidate
      const [value] = await Promise.all([redis.get(secret), redis.expire(secret, secretTtlSeconds)])
      // The key expired between the two calls: the next instance that asks stores a candidate again.
      return value ?? candidate
    }))
  }

  /** As `Backplane.block`. */
  async block (name: string, forMs: number): Promise<boolean> {
    return await new BlockStore(this.#link, this.#keys).set(name, forMs)
  }

  /** As `Backplane.count`. */
  async count (group: string): Promise<number> {
    return await readCount(this.#link, this.#keys, group)
  }

  /** As `Backplane.members`. */
  async members (group: string): Promise<Member[]> {
    return await this.#lists.read(group)
  }

  /** As `Backplane.instances`. */
  async instances (): Promise<ReadonlyMap<string, boolean>> {
    return await livingInstances(this.#link, this.#keys)
  }

  stats (): Record<string, number> {
    return this.#appends.stats()
  }

  /** Rejects the appends that still wait; the link stays open. */
  close (): void {
    this.#appends.close()
  }

  #parts<One> (targets: readonly One[]): Array<Part<One>> {
    return Array.from(chunks(targets, maxTargets), some => ({ writer: this, targets: some }))
  }
}
