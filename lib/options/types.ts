import type { WebsocketPluginOptions } from '@fastify/websocket'
import type { FastifyBaseLogger } from 'fastify'
import type { ClusterNode, ClusterOptions, RedisOptions } from 'ioredis'
import type { Backplane } from '../backplane/backplane.ts'
import type { Authenticate, JsonRoomOptions, RoomOptions } from '../route-types.ts'
import type { Connection, Identity, LogSettings, MemberInfo, Tracing } from '../types.ts'

/**
 * Stands for `true`. With `true` itself in the union, TypeScript could infer neither the type of a room without `json` nor the types of the
 * parameters of its `onMessage`.
 */
export interface True {
  valueOf (): boolean
  readonly json?: undefined
}

/** How much may come per second, and how much at once. */
export interface Rate {
  readonly perSecond: number
  /** How much may come at once, after a quiet time. @default perSecond */
  readonly burst?: number | undefined
}

/** A Redis Cluster, given by some of its nodes. */
export interface RedisCluster {
  /**
   * URLs, ports of this machine, or ioredis options: the other nodes are found from these. Password and TLS of the first one hold for all
   * nodes, unless `options` say otherwise.
   */
  readonly cluster: readonly ClusterNode[]
  /** Options of the `Cluster` of ioredis, of which `redisOptions`, `natMap` and `keyPrefix` are used. */
  readonly options?: ClusterOptions | undefined
}

/**
 * A client of ioredis, a `Redis` or a `Cluster`, of version 5 or 6. Described by its shape, because an application may have its own copy of
 * ioredis, whose classes are other types.
 */
export interface IoredisClient {
  readonly options: object
  duplicate (...args: never[]): unknown
  defineCommand (...args: never[]): unknown
}

/** Options of ioredis, of any copy of that package. */
export type IoredisOptions = Omit<RedisOptions, 'Connector'> & { readonly Connector?: unknown }

/** What to do while the backplane is out; the first choice of each is the default. */
export interface OutagePolicy {
  /** `local`: member here, registered when the backplane is back. `reject`: WSG_BACKPLANE_UNAVAILABLE. */
  readonly join: 'local' | 'reject'
  /** `local`: this instance's members get it. `drop`: nobody. `reject`: WSG_BACKPLANE_UNAVAILABLE. */
  readonly broadcast: 'local' | 'drop' | 'reject'
  /**
   * Broadcasts to groups with a log. `reject`: WSG_BACKPLANE_UNAVAILABLE. `queue`: they wait, in order, up to 1,000 messages, 1 MiB and 5
   * seconds.
   */
  readonly loggedBroadcast: 'reject' | 'queue'
  /** `stale`: last known members and counts. `reject`: WSG_BACKPLANE_UNAVAILABLE. */
  readonly reads: 'stale' | 'reject'
  /** `accept`: new sockets are served by this instance alone. `refuse`: 503 with Retry-After. */
  readonly upgrade: 'accept' | 'refuse'
  /** `degraded`: ready without the backplane once `bootTimeoutMs` is over. `fail`: the boot fails. */
  readonly boot: 'degraded' | 'fail'
}

/**
 * How much of this service clients, users and addresses may use; `false` is no limit. docs/security.md says for each limit what a client
 * over the limit is told, and which metric counts that.
 */
export interface Limits {
  /** Connections of this instance. More upgrades get 503 with Retry-After. @default 50_000 */
  readonly connections?: number | false | undefined
  /** Connections of one user on all instances. More upgrades get 429 with Retry-After. @default 100 */
  readonly connectionsPerUser?: number | false | undefined
  /**
   * Connections of one address on this instance. The address is Fastify's `request.ip` (so set `trustProxy` behind a proxy), with IPv6 the
   * first 64 bits of that. More upgrades get 429 with Retry-After. The default does not count private and loopback addresses; a number of
   * your own counts all. @default 1_000
   */
  readonly connectionsPerAddress?: number | false | undefined
  /**
   * Upgrades that one address asks for, counted before any other check. More get 429 with Retry-After. Addresses are as above.
   * @default { perSecond: 20, burst: 200 }
   */
  readonly upgradesPerAddress?: Rate | false | undefined
  /** Messages of one connection. Over the limit the connection is not read for a while. @default { perSecond: 1_000, burst: 5_000 } */
  readonly messages?: Rate | false | undefined
  /**
   * Bytes of one connection. Over the limit the connection is not read for a while.
   * @default { perSecond: 4_194_304, burst: 16_777_216 } // 4 and 16 MiB
   */
  readonly bytes?: Rate | false | undefined
  /** Joins and leaves that one client of the framed protocol asks for. More of them wait. @default { perSecond: 100, burst: 1_000 } */
  readonly requests?: Rate | false | undefined
  /** Joins with a position that one client of the framed protocol asks for. More of them wait. @default { perSecond: 50, burst: 1_000 } */
  readonly replays?: Rate | false | undefined
  /** Fresh tokens that one client of the framed protocol sends. More of them wait. @default { perSecond: 1, burst: 10 } */
  readonly tokens?: Rate | false | undefined
  /**
   * Groups that connections of one user are the first of this instance to join, per minute. More fail with WSG_RATE_LIMITED. @default
   * 1_000
   */
  readonly newGroupsPerMinute?: number | false | undefined
  /**
   * Bytes that one user adds to logs through rooms that relay messages: each connection counts up to what the log of its room keeps. More
   * messages fail with WSG_RATE_LIMITED. A rate without a burst has one of at least `maxPayload`.
   * @default { perSecond: 262_144, burst: 67_108_864 } // 256 KiB and 64 MiB
   */
  readonly storedBytes?: Rate | false | undefined
  /** Bytes of a list of members; members that do not fit are left out. @default 262_144 // 256 KiB */
  readonly presenceBytes?: number | false | undefined
  /**
   * Bytes of clients' messages that this instance holds: of messages that wait for a callback, whose callback runs, or that are unfinished.
   * Over the limit, connections that hold more than their share are not read until there is room. @default 8_388_608 // 8 MiB
   */
  readonly queuedBytes?: number | false | undefined
  /**
   * Bytes that wait in this instance for slow clients. Over the limit those furthest behind are closed with 4008.
   * @default 268_435_456 // 256 MiB
   */
  readonly bufferedBytes?: number | false | undefined
}

export type UpgradeLimit = Rate

/** Called when the first one comes or the last one goes, each time on one instance of all. Errors that the hooks throw are logged. */
export interface OccupancyHooks {
  /** A group has its first member. */
  readonly onOccupied?: ((group: string) => unknown) | undefined
  /** A group has no members any more. */
  readonly onVacated?: ((group: string) => unknown) | undefined
  /** A user has a first connection. */
  readonly onUserOnline?: ((userId: string) => unknown) | undefined
  /** A user has no connections any more. */
  readonly onUserOffline?: ((userId: string) => unknown) | undefined
}

export interface WebsocketGroupsOptions extends OccupancyHooks {
  /**
   * Redis as URL, as ioredis options, or as an ioredis client (which is duplicated, never changed, never quit); a Redis Cluster as some
   * of its nodes, or as an ioredis `Cluster`. If a server turns out to be a node of a cluster, the cluster is used. Left out: everything
   * stays in this process.
   */
  readonly redis?: string | IoredisOptions | IoredisClient | RedisCluster | undefined
  /** Tells a tracing system what happens: see docs/operations.md. Without this option nothing is traced, and nothing is loaded for it. */
  readonly tracing?: Tracing | undefined
  /** Your own backplane, or one of a `memoryCluster()`; excludes `redis`. */
  readonly backplane?: Backplane | undefined
  /** Turns a token into an identity, for `app.wsAuth()` and rooms. Throws, or returns nothing, when the token is invalid. */
  readonly authenticate?: Authenticate | undefined
  /**
   * Milliseconds that the check of a token may take: `allowedOrigins`, `authenticate` and `authorize` have them together, an async `group`
   * of a room for itself. After that the answer is a 503. With a fresh token, `group`, `mayJoin` and `mayStay` have as long.
   * @default 10_000
   */
  readonly authTimeoutMs?: number | undefined
  /**
   * Key of at least 32 characters that signs what proves to any instance that a client was in a group before, so that the client gets what
   * it missed. To rotate the key, give an array: the first key signs, all are accepted. @default drawn by the first instance and kept in
   * Redis; without Redis, one per process
   */
  readonly secret?: string | readonly string[] | undefined
  /** Which user an identity stands for. Cannot be async. @default its `userId`, else its `sub`, else its `id` */
  readonly userId?: ((identity: Identity) => string | undefined) | undefined
  /**
   * When an identity ends: milliseconds since the epoch (a number or a numeric string), a Date or an ISO 8601 string; the connection is
   * then closed with 4401. Anything else but `undefined` and `null` refuses the identity. Cannot be async. @default its `expiresAt`, else
   * its `exp` (seconds, as in a JWT)
   */
  readonly expiresAt?: ((identity: Identity) => number | string | Date | null | undefined) | undefined
  /** The id under which `registry.block({ tokenId })` knows the token of an identity. Cannot be async. @default its `jti` */
  readonly tokenId?: ((identity: Identity) => string | undefined) | undefined
  /** What other members see of a connection: at most 1,024 bytes as JSON. Cannot be async. @default nothing */
  readonly memberInfo?: ((connection: Connection) => MemberInfo | undefined) | undefined
  /** Ready-made room routes by path, added at register; `true`: with no options. */
  readonly rooms?: Readonly<Record<string, RoomOptions | JsonRoomOptions | True>> | undefined
  /** A name for this instance in logs; never used as an id. */
  readonly instanceLabel?: string | undefined
  /** Options of the `ws` server, handed to @fastify/websocket; `maxPayload` is 1 MiB unless set. */
  readonly options?: NonNullable<WebsocketPluginOptions['options']> | undefined
  /** Starts every key and channel in Redis. No braces. @default 'wsg:' */
  readonly keyPrefix?: string | undefined
  readonly outage?: { readonly [Operation in keyof OutagePolicy]?: OutagePolicy[Operation] | undefined } | undefined
  /** How much of this service one client, user or address may use. `false`: no limits. */
  readonly limits?: Limits | false | undefined
  /**
   * How many upgrades that passed authentication this instance takes; more get 503 with Retry-After. Those that did not pass count for
   * `limits.upgradesPerAddress` alone. @default { perSecond: 2_000, burst: 20_000 }
   */
  readonly upgradeLimit?: UpgradeLimit | false | undefined
  /**
   * How much groups keep of their messages, so that nothing is lost and clients can resume. `false`: nothing, every broadcast is volatile.
   * @default { maxMessages: 1_000, maxBytes: 1_048_576, ttlMs: 300_000 }
   */
  readonly log?: LogSettings | false | undefined
  /** Exceptions from `log`, by group name, by prefix (`'chat:*'`, the longest counts), or as a function (`undefined`: as `log` says). */
  readonly logs?: Readonly<Record<string, LogSettings | false>> | ((group: string) => LogSettings | false | undefined) | undefined
  /**
   * How much is kept of what `sendToUser` sends, so that framed clients that were away for a moment get it when they are back. Clients see
   * it as messages of a group `wsg:user`, see docs/client.md. Has to be the same on all instances and publishers.
   * @default { maxMessages: 100, maxBytes: 262_144, ttlMs: 300_000 }; false where `log` is false
   */
  readonly userLog?: LogSettings | false | undefined
  /** A connection that is this far behind is closed with 4008. @default 4_194_304 // 4 MiB */
  readonly maxBufferedBytes?: number | undefined
  /**
   * A connection that is this far behind gets no volatile messages, and of those with a conflation key only the latest. @default 65_536 //
   * 64 KiB
   */
  readonly slowBufferedBytes?: number | undefined
  /**
   * Milliseconds (0 to 10) that messages wait for others that can go out in the same write. 0: only for those that are there already.
   * @default 0
   */
  readonly flushIntervalMs?: number | undefined
  /** Messages of one connection that may wait for its callbacks; while it has more, the connection is not read. @default 1_024 */
  readonly maxQueuedMessages?: number | undefined
  /** The same in bytes. @default 4_194_304 // 4 MiB */
  readonly maxQueuedBytes?: number | undefined
  /** @default 1_000 */
  readonly maxGroupsPerConnection?: number | undefined
  /**
   * Milliseconds a client of the framed protocol has to come back before the others are told that it left; where the route has `presence`.
   * @default 10_000
   */
  readonly presenceGraceMs?: number | undefined
  /** Milliseconds between pings; a connection that answers none of two is terminated. 0 disables. @default 30_000 */
  readonly heartbeatIntervalMs?: number | undefined
  /** Milliseconds any call to the backplane may take. @default 500 */
  readonly operationTimeoutMs?: number | undefined
  /** Milliseconds a join, or a request to another instance, may take. @default 1_000 */
  readonly joinTimeoutMs?: number | undefined
  /** Milliseconds to wait for the backplane at boot. @default 5_000 */
  readonly bootTimeoutMs?: number | undefined
  /** Milliseconds after which the members of a silent instance are removed by the others. @default 15_000 */
  readonly leaseMs?: number | undefined
  /** Milliseconds a group without local members stays subscribed. @default 5_000 */
  readonly lingerMs?: number | undefined
  /** Milliseconds clients get to answer the close at shutdown before they are terminated. @default 1_000 */
  readonly closeGraceMs?: number | undefined
  /** Close code at shutdown. @default 1001 */
  readonly shutdownCode?: 1001 | 1012 | undefined
}

export interface PublisherOptions {
  /** As the plugin's `redis`. */
  readonly redis: string | IoredisOptions | IoredisClient | RedisCluster
  readonly keyPrefix?: string | undefined
  readonly operationTimeoutMs?: number | undefined
  /**
   * As the plugin's. Where it differs from that of the instances, the larger settings count; whether a group has a log at all must be the
   * same.
   */
  readonly log?: WebsocketGroupsOptions['log'] | undefined
  readonly logs?: WebsocketGroupsOptions['logs'] | undefined
  readonly userLog?: WebsocketGroupsOptions['userLog'] | undefined
  readonly logger?: FastifyBaseLogger | undefined
  readonly tracing?: Tracing | undefined
}
