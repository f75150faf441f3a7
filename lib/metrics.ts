import { BoundedLog } from './logging.ts'
import { announce } from './metrics/channels.ts'
import { CloseCodes } from './metrics/close-codes.ts'
import { Histogram } from './metrics/histogram.ts'
import { Timings } from './metrics/timings.ts'
import { Traffic } from './metrics/traffic.ts'
import type { AnyConnection, Tracing } from './types.ts'

/** Counters of limits. Each count is also published on the diagnostics channel `limit`. */
export type Limit =
  'refusedAddressRate' | 'refusedAddressFull' | 'refusedUserFull' | 'refusedInstanceFull' | 'refusedUpgradeRate' | 'refusedBlocked' |
  'requestsDelayed' | 'messagesRefused' | 'streamsRefused' | 'groupsRefused' | 'newGroupsRefused' | 'storedBytesRefused' | 'pauses' |
  'stalledMessages' | 'queueOverflows' | 'slowConsumersClosed' | 'fragmentFloods'

/** Counters since boot, under the names of the public `registry.stats()`. Other values are in `registry.metrics()` alone. */
export class Metrics {
  // Behind getters, so that a copy of the counters holds only numbers.
  readonly #timings = new Timings()
  readonly #traffic = new Traffic()
  readonly #closeCodes = new CloseCodes()
  readonly #logLengths = new Histogram([1, 10, 100, 1_000, 10_000, 100_000])
  readonly #lines = new BoundedLog()
  readonly #instanceId: string
  readonly #tracing: Tracing | undefined
  readonly #refusedUpgrades = new WeakSet<object>()
  connectionsOpened = 0
  connectionsClosed = 0
  /** Upgrades that authentication, a limit, or a block kept out, or that came while this instance was not ready; the reasons follow. */
  upgradesRefused = 0
  /** Refused: the address asked for more upgrades than `limits.upgradesPerAddress`. */
  refusedAddressRate = 0
  /** Refused: the address has `limits.connectionsPerAddress`. */
  refusedAddressFull = 0
  /** Refused: the user has `limits.connectionsPerUser`. */
  refusedUserFull = 0
  /** Refused: this instance has `limits.connections`. */
  refusedInstanceFull = 0
  /** Refused: more upgrades than `upgradeLimit`. */
  refusedUpgradeRate = 0
  /** Refused: the user or the token is blocked. */
  refusedBlocked = 0
  /** Refused: 401, without a token or with one that is not valid. */
  refusedUnauthorized = 0
  /** Refused: 403, by the origin, `authenticate` or `authorize`. */
  refusedForbidden = 0
  /** Refused: a check of the upgrade threw, or took too long. */
  refusedFailed = 0
  /** Refused: 404, for a path without a route for WebSockets. */
  refusedNoRoute = 0
  /** Connections of this instance that `registry.block` closed. */
  connectionsBlocked = 0
  /** Limits per user that were decided by this instance's connections alone, because the backplane was out. */
  userLimitsLocal = 0
  /** Requests of framed clients that waited, because of `limits.requests`, `limits.replays` or `limits.tokens`. */
  requestsDelayed = 0
  /** Messages by name that were over their `limit` or `maxBytes`. */
  messagesRefused = 0
  /** Streams of tokens that were not begun, because there were too many. */
  streamsRefused = 0
  /** Members that lists did not show, because of `limits.presenceBytes`, or because there were more than 1,000. */
  memberEntriesLeftOut = 0
  /** Joins that failed because of `maxGroupsPerConnection`. */
  groupsRefused = 0
  /** Joins that failed because of `limits.newGroupsPerMinute`. */
  newGroupsRefused = 0
  /** Messages that rooms did not relay because of `limits.storedBytes`. */
  storedBytesRefused = 0
  messagesReceived = 0
  /** Broadcasts and direct sends that were called on this instance. */
  messagesPublished = 0
  /** Messages that came from the backplane for connections here. */
  messagesDelivered = 0
  /** Frames handed to sockets. */
  framesSent = 0
  /** Broadcasts that only this instance's members got, because the backplane was out. */
  publishedLocally = 0
  /** Broadcasts that nobody got, because the backplane was out and the policy is `drop`. */
  publishesDropped = 0
  /** Joins that succeeded on this instance alone, because the backplane was out. */
  joinsLocal = 0
  /** Messages that failed while their connections stayed: in an outage of the backplane, or because the message was wrong. */
  messagesFailed = 0
  /** How often a connection was not read for a while, because it, or the instance, had too much to handle. */
  pauses = 0
  /** Connections closed because others needed the memory that an unfinished message of theirs took. */
  stalledMessages = 0
  /** Connections closed because far more messages waited for their callbacks than the limits allow. */
  queueOverflows = 0
  /** Connections closed because their clients read too slowly. */
  slowConsumersClosed = 0
  /** Connections closed for a message of more frames than a message may have. */
  fragmentFloods = 0
  /** Volatile messages that slow connections did not get. */
  framesDropped = 0
  /** Messages that a newer one with the same key replaced before a slow connection got them. */
  framesConflated = 0
  /** Losses of messages in logs of groups that have members here. */
  gaps = 0
  /** Connections that lost messages of a group, counted once per loss. */
  gapConnections = 0
  /** Connections terminated because their clients answered no ping. */
  heartbeatTimeouts = 0
  /** Connections closed because their tokens expired. */
  tokensExpired = 0
  /** Fresh tokens that clients of the framed protocol sent, and that were refused. */
  tokensRefused = 0
  /** Resumes from a position that the log no longer holds, by clients that could not prove that they were in the group before. */
  resumesRefused = 0
  /** Closed connections whose callbacks were not done a minute later. */
  callbacksOverdue = 0
  /** Replies to other instances that could not be sent. */
  repliesLost = 0

  constructor (instanceId = '', tracing?: Tracing) {
    this.#instanceId = instanceId
    this.#tracing = tracing
  }

  /** The option `tracing`, for the parts that trace single messages. */
  get tracing (): Tracing | undefined {
    return this.#tracing
  }

  get timings (): Timings {
    return this.#timings
  }

  get traffic (): Traffic {
    return this.#traffic
  }

  get closeCodes (): CloseCodes {
    return this.#closeCodes
  }

  /** How many messages logs hold, recorded at each append of this instance. */
  get logLengths (): Histogram {
    return this.#logLengths
  }

  /** For log lines that clients can cause. */
  get lines (): BoundedLog {
    return this.#lines
  }

  /** A connection is closed, and its callbacks are done. */
  connectionClosed (connection: AnyConnection, { code, reason }: { readonly code: number, readonly reason: string }): void {
    this.connectionsClosed++
    this.#closeCodes.add(code)
    announce('connection.close', () => ({ connection, code, reason }))
  }

  /**
   * A limit refused an upgrade, a check of the service answered it with this status, or there is no route for it; without a reason, the
   * instance takes no connections now. Counts a request once: a check may fail, or find a limit reached, after the shutdown refused its
   * request.
   */
  upgradeRefused (request: object, reason?: Limit | number | 'noRoute'): void {
    if (this.#refusedUpgrades.has(request)) return
    this.#refusedUpgrades.add(request)
    this.upgradesRefused++
    if (reason === undefined) return
    if (reason === 'noRoute') this.refusedNoRoute++
    else if (typeof reason === 'string') this.limitHit(reason)
    else if (reason === 401) this.refusedUnauthorized++
    else if (reason === 403) this.refusedForbidden++
    else this.refusedFailed++
  }

  /** A limit delayed or refused something; `connection`: the one that hit the limit, if there is one. */
  limitHit (limit: Limit, connection?: AnyConnection): void {
    this[limit]++
    announce('limit', () => ({ instanceId: this.#instanceId, limit, ...(connection === undefined ? {} : { connection }) }))
  }
}
