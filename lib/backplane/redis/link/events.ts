/** The events of a link. */
export interface LinkEvents {
  /** The link works now: after the first connect, a reconnect, or a hang. */
  readonly up?: (() => void) | undefined
  /** The link broke, or Redis does not answer on it. */
  readonly down?: (() => void) | undefined
  readonly error?: ((error: Error) => void) | undefined
  /** A node of a cluster took back channels whose slot went to another node. */
  readonly moved?: (() => void) | undefined
}

/** `late`: it came by a connection that was given up, while the next one is on its way or not in step yet. */
export type MessageListener = (channel: Buffer, bytes: Buffer, late: boolean) => void

export interface LinkStats {
  /** Open connections: the link's own, and those beside it. */
  readonly connections: number
  readonly timeouts: number
  readonly reconnects: number
}
