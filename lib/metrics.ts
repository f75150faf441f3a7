/** Counters since boot; names are part of the public `registry.stats()`. */
export class Metrics {
  connectionsOpened = 0
  connectionsClosed = 0
  /** Upgrades that got 403, 429 or 503 from a limit, a block, or because this instance is not ready; the reasons follow. */
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
  /** Closed by `registry.block`, of this instance. */
  connectionsBlocked = 0
  /** Limits per user that were decided by this instance's connections alone, because the backplane was out. */
  userLimitsLocal = 0
  /** Joins that failed because of `limits.newGroupsPerMinute`. */
  newGroupsRefused = 0
  messagesReceived = 0
  /** Broadcasts and direct sends asked of this instance. */
  messagesPublished = 0
  /** Envelopes that came from the backplane for connections here. */
  messagesDelivered = 0
  /** Frames handed to sockets. */
  framesSent = 0
  /** Broadcasts that reached this instance's members alone, because the backplane was out. */
  publishedLocally = 0
  /** Broadcasts that policy dropped, because the backplane was out. */
  publishesDropped = 0
  joinsLocal = 0
  /** How often a connection was not read for a while, because it, or the instance, had too much to handle. */
  pauses = 0
  /** Connections that were closed because others needed the memory that an unfinished message of theirs took. */
  stalledMessages = 0
  /** Connections that were closed because far more waited for their callbacks than the limits allow. */
  queueOverflows = 0
  slowConsumersClosed = 0
  /** Volatile messages that slow connections did not get. */
  framesDropped = 0
  /** Messages that were replaced by a newer one of their key before a slow connection got them. */
  framesConflated = 0
  heartbeatTimeouts = 0
  tokensExpired = 0
  /** Answers to other instances that could not be sent. */
  repliesLost = 0
}
