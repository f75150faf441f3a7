import type { WebsocketPluginOptions } from '@fastify/websocket'
import type { FastifyBaseLogger } from 'fastify'
import type { Redis, RedisOptions } from 'ioredis'
import type { Backplane } from '../backplane/backplane.ts'
import type { Authenticate, RoomOptions } from '../route-types.ts'
import type { Connection, Identity, LogSettings, MemberInfo } from '../types.ts'

/** What to do while the backplane is out; the first choice of each is the default. */
export interface OutagePolicy {
  /** `local`: member here, registered when the backplane is back. `reject`: WSG_BACKPLANE_UNAVAILABLE. */
  readonly join: 'local' | 'reject'
  /** `local`: this instance's members get it. `drop`: nobody. `reject`: WSG_BACKPLANE_UNAVAILABLE. */
  readonly broadcast: 'local' | 'drop' | 'reject'
  /** Broadcasts to groups with a log. `reject`: WSG_BACKPLANE_UNAVAILABLE. `queue`: they wait, in order, up to 1,000 messages, 1 MiB and 5 seconds. */
  readonly loggedBroadcast: 'reject' | 'queue'
  /** `stale`: last known members and counts. `reject`: WSG_BACKPLANE_UNAVAILABLE. */
  readonly reads: 'stale' | 'reject'
  /** `accept`: new sockets are served by this instance alone. `refuse`: 503 with Retry-After. */
  readonly upgrade: 'accept' | 'refuse'
  /** `degraded`: ready without the backplane once `bootTimeoutMs` is over. `fail`: the boot fails. */
  readonly boot: 'degraded' | 'fail'
}

export interface UpgradeLimit {
  readonly perSecond: number
  readonly burst?: number | undefined
}

export interface WebsocketGroupsOptions {
  /** Redis as URL, as ioredis options, or as an ioredis client (which is duplicated, never changed, never quit). Left out: everything stays in this process. */
  readonly redis?: string | RedisOptions | Redis | undefined
  /** Your own backplane, or one of a `memoryCluster()`; excludes `redis`. */
  readonly backplane?: Backplane | undefined
  /** Turns a token into an identity, for `app.wsAuth()` and rooms; throws, or returns nothing, when the token is no good. */
  readonly authenticate?: Authenticate | undefined
  /** Which user an identity stands for. @default its `userId`, else its `sub`, else its `id` */
  readonly userId?: (identity: Identity) => string | undefined
  /** When an identity ends, in milliseconds since the epoch; the connection is then closed with 4401. @default its `expiresAt`, else its `exp` (seconds) */
  readonly expiresAt?: (identity: Identity) => number | undefined
  /** What other members see of a connection; at most 1,024 bytes as JSON. @default nothing */
  readonly memberInfo?: (connection: Connection) => MemberInfo | undefined
  /** Ready-made room routes by path, added at register. */
  readonly rooms?: Readonly<Record<string, RoomOptions | true>> | undefined
  /** A name for this instance in logs; never used as an id. */
  readonly instanceLabel?: string | undefined
  /** Options of the `ws` server, handed to @fastify/websocket; `maxPayload` is 1 MiB unless set. */
  readonly options?: NonNullable<WebsocketPluginOptions['options']> | undefined
  /** Starts every key and channel in Redis. No braces. @default 'wsg:' */
  readonly keyPrefix?: string | undefined
  readonly outage?: { readonly [Operation in keyof OutagePolicy]?: OutagePolicy[Operation] | undefined } | undefined
  /** How many upgrades per second this instance takes, after a burst of as many as `burst` (default: those of one second); more get 503 with Retry-After. @default no limit */
  readonly upgradeLimit?: UpgradeLimit | undefined
  /** What groups keep of their messages, so that nothing is lost and clients can resume. `false`: nothing, every broadcast is volatile. @default { maxMessages: 100, ttlMs: 300_000 } */
  readonly log?: LogSettings | false | undefined
  /** Exceptions from `log`, by group name, by prefix (`'chat:*'`, the longest counts), or as a function (`undefined`: as `log` says). */
  readonly logs?: Readonly<Record<string, LogSettings | false>> | ((group: string) => LogSettings | false | undefined) | undefined
  /** A connection that is this far behind is closed with 4008. @default 4_194_304 // 4 MiB */
  readonly maxBufferedBytes?: number | undefined
  /** A connection that is this far behind gets no volatile messages, and of those with a conflation key only the latest. @default 65_536 // 64 KiB */
  readonly slowBufferedBytes?: number | undefined
  /** Milliseconds (0 to 10) that messages wait for others that can go out in the same write. 0: only for those that are there already. @default 0 */
  readonly flushIntervalMs?: number | undefined
  /** Messages of one connection that may wait for its callbacks; more closes it with 1008 (1013 while `onConnect` runs). @default 1_024 */
  readonly maxQueuedMessages?: number | undefined
  /** The same in bytes. @default 4_194_304 // 4 MiB */
  readonly maxQueuedBytes?: number | undefined
  /** @default 1_000 */
  readonly maxGroupsPerConnection?: number | undefined
  /** Milliseconds a client of the framed protocol has to come back before the others are told that it left; where the route has `presence`. @default 10_000 */
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
  readonly redis: string | RedisOptions | Redis
  readonly keyPrefix?: string | undefined
  readonly operationTimeoutMs?: number | undefined
  /** As the plugin's; must be the same, or what this process publishes is not what the instances repair from. */
  readonly log?: WebsocketGroupsOptions['log'] | undefined
  readonly logs?: WebsocketGroupsOptions['logs'] | undefined
  readonly logger?: FastifyBaseLogger | undefined
}
