import type { FastifyBaseLogger } from 'fastify'
import type { WebSocket } from 'ws'
import type { IntakeBudget } from './inbound/intake-budget.ts'
import type { JsonMessage } from './inbound/json-message.ts'
import type { InboundLimits } from './inbound/message-buffer.ts'
import type { FlushScheduler } from './outbound/flush-scheduler.ts'
import type { RequestLimits } from './framed/request-rates.ts'
import type { Reauthentication, RefreshInit } from './framed/token-refresh.ts'
import type { Metrics } from '../metrics.ts'
import type { RouteTraffic } from '../metrics/traffic.ts'
import type { ConnectionCallbacks } from '../route-types.ts'
import type { Connection, History, HistoryOptions, JoinOptions, JoinResult, LossReason } from '../types.ts'

/** The instance that a connection belongs to: one object for all its connections, as closures for each would take more memory. */
export interface ConnectionHost<Self> {
  readonly limits: InboundLimits
  /** The limits of the instance for what clients send. */
  readonly intake: IntakeBudget
  readonly scheduler: FlushScheduler
  readonly metrics: Metrics
  /** Makes the connection known to the instance; `onConnect` waits until that is done. */
  enter (connection: Self): Promise<void> | undefined
  /** The framed client said hello, and the connection is known; `onConnect` waits for this, too. */
  greeted? (connection: Self): Promise<void>
  /** Forgets the connection and its memberships. An outage of the backplane does not make it reject. */
  release (connection: Self): Promise<void>
  /** Stores what other members see of the connection. */
  setInfo? (connection: Self, info: unknown): Promise<void>
  /** Reports that the connection lost messages of a group. */
  lost? (group: string, reason: LossReason): void
}

/** What a route and the instance give to all framed connections of the route: one object, as closures for each would take more memory. */
export interface FramedInit extends RefreshInit {
  join (connection: Connection, group: string, options?: JoinOptions): Promise<JoinResult>
  /** Leaves the group because the client asked to. */
  leave (connection: Connection, group: string): Promise<boolean>
  history (group: string, options: HistoryOptions): Promise<History>
  /** Whether the connection may still send messages to the route. Left out: always. */
  readonly mayPost?: ((connection: Connection) => boolean) | undefined
  /** Takes messages that come as JSON values; without it, the route's `onMessage` gets them as text. */
  readonly json?: { onMessage (connection: Connection, data: JsonMessage): unknown } | undefined
  readonly requestLimits: RequestLimits
  readonly pingMs: number
  readonly resumeMs: number
  /** How long the client may take to say hello, and the route after that to put the connection into the groups that the hello resumes. */
  readonly helloTimeoutMs: number
}

/** What a connection is made of; `Self` is the class of the connection. */
export interface ConnectionInit<Self> {
  readonly socket: WebSocket
  readonly id: string
  readonly params: Connection['params']
  readonly identity: Connection['identity']
  readonly userId: string | undefined
  readonly log: FastifyBaseLogger
  readonly callbacks: ConnectionCallbacks
  /** Whether it belongs to a page of a dashboard. */
  readonly forOperators?: boolean | undefined
  /** Counts what goes in and out; left out for a connection of no route. */
  readonly route?: RouteTraffic | undefined
  /** Set when the client speaks the framed protocol. */
  readonly framed?: FramedInit | undefined
  /** The token checks of the route, for later tokens; left out on routes without auth. */
  readonly reauthentication?: Reauthentication | undefined
  readonly host: ConnectionHost<Self>
  /** The key for the limit of connections per address; '' or left out for none. */
  readonly address?: string | undefined
}
