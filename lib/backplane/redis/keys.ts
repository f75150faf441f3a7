import { userLogOf, userOfLog } from '../user-log.ts'
import type { Presences, Target } from '../backplane.ts'

/** The hash tag of what belongs to no group, no user and no instance, the same for every number of partitions. */
export const commonTag = '0'

/**
 * Every key and channel name of one partition. All carry its hash tag, so that a script's keys share a slot on a cluster; a single Redis
 * has one partition. The tag stands first and the instance id last with a fixed length, so a group may be named anything.
 */
export class Keys {
  /** What all names begin with, in every partition. */
  readonly prefix: string
  readonly #base: string
  readonly #channels: string

  /**
   * `db`: the database that the keys are in. All databases of a server share the channels, so the names of channels contain the database.
   * `tag`: the hash tag of the partition.
   */
  constructor (prefix: string, db = 0, tag = commonTag) {
    this.prefix = prefix
    this.#base = `${prefix}{${tag}}:`
    this.#channels = db === 0 ? `${this.#base}c:` : `${this.#base}c:${db}:`
  }

  /** Sorted set: instance id -> end of its lease (milliseconds by the clock of Redis). */
  get leases (): string {
    return `${this.#base}live`
  }

  /** Hash: instance id -> `<state><generation>:<boot nonce>`. */
  get instances (): string {
    return `${this.#base}inst`
  }

  /**
   * Hash: instance id -> generation that may write memberships; the fence against late writers and reapers. An empty id -> a number that
   * moves when a key of memberships is written anew: see audit.ts.
   */
  get generations (): string {
    return `${this.#base}gen`
  }

  /** Hash: connection id -> member record, of one group on one instance. */
  members (group: string, instanceId: string): string {
    return `${this.#base}m:${group}:${instanceId}`
  }

  /** Hash: instance id -> number of members there, and `#` -> their sum. */
  counts (group: string): string {
    return `${this.#base}r:${group}`
  }

  /** Set: the groups in which an instance has members, for whoever cleans up when the instance dies. */
  index (instanceId: string): string {
    return `${this.#base}i:${instanceId}`
  }

  /** String: the secret that all instances sign with. */
  get secret (): string {
    return `${this.#base}secret`
  }

  /** String: how the keys are divided into partitions; under `commonTag` alone. */
  get names (): string {
    return `${this.#base}names`
  }

  /** Hash: epoch `e`, last offset `s`, last nonce `n`, settings and sizes of a group's log; `p<id>`: what that publisher appended last. */
  logMeta (group: string): string {
    return `${this.#base}h:${group}`
  }

  /** List: the messages of a group's log, as they were published. */
  log (group: string): string {
    return `${this.#base}l:${group}`
  }

  /** Hash: instance id -> number of connections that a user has there. */
  user (userId: string): string {
    return `${this.#base}u:${userId}`
  }

  /** Set: the groups with members, or the users online, as the hooks of the application were last told. */
  told (kind: Presences): string {
    return `${this.#base}told:${kind}`
  }

  /** Sorted set: user or token that is kept out -> until when (milliseconds by the clock of Redis). */
  get blocks (): string {
    return `${this.#base}blocked`
  }

  /** Hash: who was put out of the group -> when, and how far its log was then. */
  revocations (group: string): string {
    return `${this.#base}x:${group}`
  }

  /** String: the position of the message that was published with an idempotency key. */
  idempotency (group: string, key: string): string {
    return `${this.#base}k:${Buffer.byteLength(group)}:${group}:${key}`
  }

  /** String: what a process was answered last when it asked which hooks to call. No group has an empty name. */
  answer (id: string): string {
    return this.idempotency('', id)
  }

  /** String: the text of a stream so far. */
  streamText (group: string, id: string): string {
    return `${this.#base}st:${Buffer.byteLength(group)}:${group}:${id}`
  }

  /** Hash: `epoch`, `head`, `state`, `end` and `beat` of a stream. */
  streamHead (group: string, id: string): string {
    return `${this.#base}sh:${Buffer.byteLength(group)}:${group}:${id}`
  }

  /** Sorted set: id of a stream of the group -> until when it is kept (milliseconds by the clock of Redis). */
  streams (group: string): string {
    return `${this.#base}sx:${group}`
  }

  /** What the names of all keys of this partition begin with. */
  get base (): string {
    return this.#base
  }

  /** The channel of a target. The log of a user shares the channel of the user. */
  channel ({ kind, name }: Target): string {
    const userId = kind === 'group' ? userOfLog(name) : undefined
    if (userId !== undefined) return this.channel({ kind: 'user', name: userId })
    switch (kind) {
      case 'group': return `${this.#channels}g:${name}`
      case 'user': return `${this.#channels}u:${name}`
      case 'instance': return `${this.#channels}i:${name}`
      case 'all': return `${this.#channels}all`
    }
  }

  /** The group of a channel, or the name of a user's log; `undefined` for channels of other kinds. */
  groupOf (channel: string): string | undefined {
    const name = channel.slice(this.#channels.length + 2)
    if (channel.startsWith(`${this.#channels}g:`)) return name
    return channel.startsWith(`${this.#channels}u:`) ? userLogOf(name) : undefined
  }
}
