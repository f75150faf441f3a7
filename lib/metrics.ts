/** Counters since boot; names are part of the public `registry.stats()`. */
export class Metrics {
  connectionsOpened = 0
  connectionsClosed = 0
  upgradesRefused = 0
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
  queueOverflows = 0
  slowConsumersClosed = 0
  /** Volatile messages that slow connections did not get. */
  framesDropped = 0
  /** Messages that were replaced by a newer one of their key before a slow connection got them. */
  framesConflated = 0
  heartbeatTimeouts = 0
  tokensExpired = 0
  /** Fresh tokens that a framed client sent on its connection, and that were no good. */
  tokensRefused = 0
  /** Resumes from a position that the log does not hold, by clients that could not prove that they were in the group before. */
  resumesRefused = 0
  /** Answers to other instances that could not be sent. */
  repliesLost = 0
}
