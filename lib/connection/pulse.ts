/** The counters of a network socket. `_handle.writeQueueSize`: bytes of the current write that the operating system has not taken. */
export interface Traffic {
  readonly bytesRead?: number
  readonly bytesWritten?: number
  readonly writableLength?: number
  readonly _handle?: { readonly writeQueueSize?: number } | null
}

/** Intervals without a sign of life after which a connection is dead. */
const maxSilentIntervals = 2
/** The slowest link that clients get time for, unless their link was seen to be faster. */
const slowestBytesPerSecond = 4_096
/**
 * Operating systems and proxies seldom hold more than this. What they do not take waits in this process, where its progress can be seen.
 */
const maxOnTheWayBytes = 1_048_576

/**
 * Whether the other side of a connection lives, judged once per interval. Besides messages and pongs, progress counts: bytes of a large
 * message that are still coming in, and bytes of one that is still going out. One ping is on its way at a time, behind all that was sent
 * before it: its answer says that all of that arrived.
 */
export class Pulse {
  /** Whether something came since the last look: for sockets that do not count their bytes. */
  #received = false
  /** Whether a ping is unanswered. */
  #asked = false
  #silentIntervals = 0
  /** How much the socket had written when the latest ping was sent, and when the latest ping with an answer was sent. */
  #askedAtBytes = 0
  #answeredAtBytes = 0
  /** Looks since the latest pong, and how many bytes per interval had arrived up to that pong. */
  #looks = 0
  #arrivedPerInterval = 0
  #readBytes = 0
  /** What the operating system had taken at the last look; `undefined` for everything. It takes more only when the peer received some. */
  #takenBytes: number | undefined

  /** A message came. */
  received (): void {
    this.#received = true
  }

  /** A pong came. Returns whether it answers a ping. */
  ponged (): boolean {
    this.#received = true
    if (!this.#asked) return false
    this.#asked = false
    this.#arrivedPerInterval = (this.#askedAtBytes - this.#answeredAtBytes) / this.#looks
    this.#answeredAtBytes = this.#askedAtBytes
    this.#looks = 0
    return true
  }

  /** Called once per interval. Returns what to do with the connection. */
  look (traffic: Traffic, intervalMs: number): 'ping' | 'wait' | 'terminate' {
    const { bytesRead = 0, bytesWritten = 0, writableLength = 0 } = traffic
    const takenBytes = bytesWritten - writableLength - (traffic._handle?.writeQueueSize ?? 0)
    const alive = this.#received || bytesRead !== this.#readBytes || (this.#takenBytes !== undefined && takenBytes !== this.#takenBytes)
    this.#received = false
    this.#readBytes = bytesRead
    this.#takenBytes = writableLength > 0 ? takenBytes : undefined
    this.#looks++
    if (!this.#asked) {
      this.#asked = true
      this.#silentIntervals = 0
      this.#askedAtBytes = bytesWritten
      return 'ping'
    }
    this.#silentIntervals = alive ? 0 : this.#silentIntervals + 1
    return this.#silentIntervals < maxSilentIntervals + this.#intervalsOnTheWay(intervalMs) ? 'wait' : 'terminate'
  }

  /** How many intervals the bytes ahead of the ping, and with them the ping, may take to arrive. */
  #intervalsOnTheWay (intervalMs: number): number {
    const bytes = Math.min(this.#askedAtBytes - this.#answeredAtBytes, maxOnTheWayBytes)
    return Math.floor(bytes / Math.max(this.#arrivedPerInterval, slowestBytesPerSecond * intervalMs / 1_000))
  }
}
