/** Counters since boot. Their names are those of the public `registry.stats()`. */
export class Metrics {
  connectionsOpened = 0
  connectionsClosed = 0
  upgradesRefused = 0
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
  /** Connections closed because too many messages waited for their callbacks. */
  queueOverflows = 0
  /** Connections closed because their clients read too slowly. */
  slowConsumersClosed = 0
  /** Volatile messages that slow connections did not get. */
  framesDropped = 0
  /** Messages that a newer one with the same key replaced before a slow connection got them. */
  framesConflated = 0
  /** Losses of messages in logs of groups that have members here. */
  gaps = 0
  /** Connections that messages of a group are lost to, counted once per loss. */
  gapConnections = 0
  /** Connections terminated because their clients answered no ping. */
  heartbeatTimeouts = 0
  /** Connections closed because their tokens expired. */
  tokensExpired = 0
  /** Fresh tokens that clients of the framed protocol sent, and that were refused. */
  tokensRefused = 0
  /** Resumes from a position that the log no longer holds, by clients that could not prove that they were in the group before. */
  resumesRefused = 0
  /** Replies to other instances that could not be sent. */
  repliesLost = 0
}
