import type { FastifyBaseLogger } from 'fastify'
import type { BackplaneState, GapReason, Member } from '../types.ts'
import type { Appended, AppendTarget, Envelope, LogPage, LogPosition, Target } from './messages.ts'
import type { StreamStore } from './streams.ts'

export type { GapReason } from '../types.ts'

export * from './messages.ts'
export * from './streams.ts'

/** The kinds of names that come and go: groups that have members, and users that have connections. */
export type Presences = 'group' | 'user'

/** A group got its first member, or a user the first connection; or the last one is gone. */
export interface PresenceChange { readonly name: string, readonly present: boolean }

/** A user or a token that is blocked, under the name that instances made for it. */
export interface Block {
  readonly name: string
  /** Milliseconds until the block ends. */
  readonly leftMs: number
}

/** How many names can be blocked at the same time. */
export const maxBlocks = 10_000

/** Somebody was put out of a group. */
export interface Revocation {
  /** Milliseconds since 1970, by the clock of `now`. */
  readonly at: number
  /** The latest position of the group's log that was known then; left out if none was known. */
  readonly position?: LogPosition | undefined
}

/** What a backplane may ask of the instance it serves. */
export interface LocalInstance {
  readonly instanceId: string
  readonly label: string
  readonly log: FastifyBaseLogger
  /** Hands over an envelope that arrived; never throws. Envelopes of a group's log come in the order of the log, each once. */
  deliver (envelope: Envelope): void
  /**
   * Messages of a group's log are lost to this instance for good; what is delivered next comes after `position`. `epoch`: the epoch of the
   * log that goes on ('' for none), which a position at the beginning of that log does not tell. `between`: if a log came back that this
   * instance had left, the epochs of the logs that the group had meanwhile; what was delivered from the log before is not delivered again.
   */
  gap (group: string, reason: GapReason, position: LogPosition, epoch: string, between?: readonly string[]): void
  /** The log of a group seemed to be lost and is there again as it was: what is delivered next comes after `position`. */
  returned? (group: string, position: LogPosition): void
  /** The membership as it is now; `undefined` when the connection is not in the group. */
  member (group: string, connectionId: string): Member | undefined
  /** Ids of the connections that are in the group now. */
  memberIds (group: string): Iterable<string>
  /** How many connections of the user this instance has now, including those that are about to open. */
  connectionsOf (userId: string): number
  /** The groups that have members here now. */
  groups (): Iterable<string>
  /** Whether broadcasts to the group go through a log, so that its subscribers have to keep up with it. */
  logged (group: string): boolean
  /** This instance removed memberships of a dead instance; the other instances do not know yet. */
  membersLost? (): void
  /** The blocks that this instance knows of and that last: for a backplane that puts back by itself what its store lost. */
  blocks? (): Iterable<Block>
  /** The list of blocks is another one than `Backplane.blocks` told of last: this instance asks again. */
  blocksLost? (): void
  /** Runs `read`, which reads missed messages from the log of a group: in a span if the application traces. */
  repairing? <Result> (group: string, read: () => Promise<Result>): Promise<Result>
  /** Called on every change of `state`, after it changed. */
  stateChanged (): void
}

/**
 * Carries envelopes between instances and keeps the memberships. Memory and Redis ship with this package; a backplane of your own must pass
 * the suite in `fastify-websocket-groups/contract`.
 *
 * The contract:
 * - An envelope published after `subscribe(target)` resolved reaches this instance, the publisher's own included, unless the backplane
 *   breaks.
 * - All instances see the envelopes of one target in the same order.
 * - An instance gets nothing for targets it is not subscribed to (it may still for a while after `unsubscribe`).
 * - Copies of one envelope published or appended to several targets arrive one after another, with nothing between them. The order of
 *   such envelopes is the same in all logs they stand in, and for an instance that is subscribed to several of them: what it missed is
 *   delivered where it belongs.
 * - An envelope arrives at most once per target.
 * - While an instance is subscribed to a group, it gets every message of its log, in order, each once: what the transport lost is read
 *   from the log before anything newer is delivered. If that is impossible, `LocalInstance.gap` is called once, before the messages that
 *   are still there.
 * - Memberships are absolute state, pulled from the instance: nothing is lost by an outage, nothing queues up during one.
 * - The memberships of an instance that dies vanish without its help.
 * - Every promise settles within a deadline; while the backplane is out, at once.
 */
export interface Backplane {
  /** For logs and health: 'memory', 'redis', … */
  readonly name: string
  readonly state: BackplaneState
  /** What is wrong now, one sentence for each problem. */
  readonly problems: readonly string[]
  /** `history` reads the memory of this process: logs are not cached a second time. @default false */
  readonly localHistory?: boolean | undefined
  /** Optional: without it there are no streams of tokens. While the backplane is not started, its calls throw WSG_BACKPLANE_UNAVAILABLE. */
  readonly streams?: StreamStore | undefined
  /** Optional. Milliseconds since 1970 by the clock that all instances share; without it, each has its own. */
  now? (): number
  /**
   * Called once, before anything else. Resolves when the backplane works, or when its boot deadline is over: then `state` is `down`, and
   * the backplane goes on trying.
   * @throws WSG_INSTANCE_ID_TAKEN, WSG_REDIS_UNSUPPORTED or any other error that waiting cannot heal: the boot fails with it
   */
  start (local: LocalInstance): Promise<void>
  /**
   * Resolves once envelopes for the target reach this instance. Idempotent; cancels a pending `unsubscribe`.
   * A rejection means "not yet": the target stays wanted until `unsubscribe`, and is subscribed as soon as that is possible.
   * @throws WSG_BACKPLANE_UNAVAILABLE
   */
  subscribe (target: Target): Promise<void>
  /** The target is no longer needed. It may stay subscribed for a while, in case it is wanted again. */
  unsubscribe (target: Target): void
  /** Whether the target is wanted but, because the backplane broke, envelopes for it do not reach this instance now. */
  interrupted (target: Target): boolean
  /**
   * Resolves with how many instances took the envelope (undefined: unknown). One copy goes to each target; `envelope.target` is replaced.
   * @throws WSG_BACKPLANE_UNAVAILABLE (surely not sent), WSG_TIMEOUT (may have been sent, or may still be)
   */
  publish (targets: readonly Target[], envelope: Envelope): Promise<number | undefined>
  /**
   * Stores the envelope at the end of the log of each group and sends it to all subscribed instances, in one step: in all of the groups or
   * in none, with nothing between its copies. `envelope.target` is replaced. At least one group keeps a log. After an unknown outcome the
   * backplane itself retries: one call stores the envelope once. Calls that have a group in common are carried out in their order. With
   * `key`, a group that got a message with this key within five minutes is left out, and its position is that of the first message.
   * @throws WSG_BACKPLANE_UNAVAILABLE (not stored), WSG_TIMEOUT (may have been stored, or may still be), WSG_QUEUE_FULL
   */
  append (targets: readonly AppendTarget[], envelope: Envelope, key?: string): Promise<Appended>
  /**
   * Reads one page of a log, oldest first: what follows `since`, or without it the latest `limit` messages of the log. From the beginning
   * of the log, the position with epoch '', it reads from the earliest message that is kept (`gap` is then 'trimmed' when that is not the
   * very first). A page has at most `limit` messages and `maxPageBytes`, but at least one message where there is one; what does not fit
   * follows with `more`.
   * @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  history (group: string, since: LogPosition | undefined, limit: number): Promise<LogPage>
  /**
   * How far this instance has delivered the log of a group it is subscribed to; `undefined` when that is not known. Members here are owed
   * all that follows. The position is known, too, once `subscribe` failed for the group while its log could be read, and after the first
   * `history` that worked: what follows is delivered when the group is subscribed.
   */
  position (group: string): LogPosition | undefined
  /**
   * Optional, for backplanes whose instances may lose their subscriptions and live on. Resolves with the ids of all living instances, and
   * whether what is published to the `instance` target of each reaches it now. An instance whose `instance` target is subscribed again has
   * all its other targets, too. Without this call, an instance that takes nothing counts as gone.
   * @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  instances? (): Promise<ReadonlyMap<string, boolean>>
  /**
   * Optional. Resolves with a secret that all instances share and that outlives them: the `candidate` of the instance that asked first.
   * With the secret an instance accepts what another one signed for a client; without it, clients that come back to another instance may
   * get less of what they missed.
   * @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  secret? (candidate: string): Promise<string>
  /**
   * Optional. Remembers for `forMs` milliseconds that the holders of these names (at most 257 bytes each) were put out of the group, in
   * place of what was remembered of them, unless that was later. What is remembered outlives the instances. Without this call, an instance
   * knows only whom it put out itself.
   * @throws WSG_BACKPLANE_UNAVAILABLE (not stored), WSG_TIMEOUT (may have been stored)
   */
  revoke? (group: string, names: readonly string[], revocation: Revocation, forMs: number): Promise<void>
  /**
   * Optional, with `revoke`. Resolves with the latest revocation of any of the names. If a group had too many to remember each, the result
   * may be a later one of somebody else.
   * @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  revoked? (group: string, names: readonly string[]): Promise<Revocation | undefined>
  /**
   * This membership changed: stores what `LocalInstance.member` says. Resolves when it is stored.
   * A rejection means "not yet": it is stored as soon as that is possible.
   * @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  syncMember (group: string, connectionId: string): Promise<void>
  /**
   * This instance's number of connections of a user changed: stores what `LocalInstance.connectionsOf` says. Resolves with how many
   * connections the user has on other instances; those of an instance that died count until its lease is over. A rejection means "not yet":
   * the number is stored as soon as that is possible.
   * @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  syncUser (userId: string): Promise<number>
  /**
   * Puts a name (at most 257 bytes) on the list that `blocks` reads, for `forMs` milliseconds; 0 removes the name. The list outlives the
   * instances. Resolves with `false`, and changes nothing, when `maxBlocks` others are on it.
   * @throws WSG_BACKPLANE_UNAVAILABLE (not stored), WSG_TIMEOUT (may have been stored)
   */
  block (name: string, forMs: number): Promise<boolean>
  /**
   * Resolves with `undefined` when there is no list, because no block is left or because the data was lost: then instances put back the
   * blocks that they know.
   * @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  blocks (): Promise<readonly Block[] | undefined>
  /**
   * Optional. Compares which of these groups have members (or which of these users have connections on living instances) with what was told
   * of them in the whole cluster; without `names`, compares all that were told to have some. Records the differences as told, and resolves
   * with them: of several calls, one gets each difference. What `syncUser` could not store before is stored first.
   * @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  settle? (kind: Presences, names: readonly string[] | undefined): Promise<readonly PresenceChange[]>
  /** @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT */
  count (group: string): Promise<number>
  /** @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT */
  members (group: string): Promise<Member[]>
  /** Counters and gauges for `registry.stats()`. */
  stats (): Readonly<Record<string, number>>
  /** Gives back all memberships and subscriptions, then the resources. Idempotent, settles within two seconds. */
  close (): Promise<void>
}
