import type { FastifyBaseLogger } from 'fastify'
import type { WebSocket } from 'ws'
import type { FramedInit } from './framed-session.ts'
import type { IntakeBudget } from './intake-budget.ts'
import type { InboundLimits } from './message-buffer.ts'
import type { FlushScheduler } from './outbound/flush-scheduler.ts'
import type { Metrics } from '../metrics.ts'
import type { RouteTraffic } from '../metrics/traffic.ts'
import type { ConnectionCallbacks } from '../route-types.ts'
import type { Connection, LossReason } from '../types.ts'

/** The instance that a connection belongs to: one object for all its connections, as closures for each would take more memory. */
export interface ConnectionHost<Self> {
  readonly limits: InboundLimits
  /** What the instance has room for. */
  readonly intake: IntakeBudget
  readonly scheduler: FlushScheduler
  readonly metrics: Metrics
  /** Makes the connection known; `onConnect` waits for it. */
  enter (connection: Self): Promise<void> | undefined
  /** The framed client said hello, and the connection is known; `onConnect` waits for this, too. */
  greeted? (connection: Self): Promise<void>
  /** Forgets the connection and its memberships; never rejects. */
  release (connection: Self): Promise<void>
  /** Stores what other members see of the connection. */
  setInfo? (connection: Self, info: unknown): Promise<void>
  /** Messages of a group are lost to the connection. */
  lost? (group: string, reason: LossReason): void
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
  /** Counts what goes in and out; left out for a connection of no route. */
  readonly route?: RouteTraffic | undefined
  /** Set when the client speaks the framed protocol. */
  readonly framed?: FramedInit | undefined
  readonly host: ConnectionHost<Self>
  /** What the instance counts it by, for the limit per address; '' or left out for nothing. */
  readonly address?: string | undefined
}
