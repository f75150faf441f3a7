/** How often a link is looked at (milliseconds). */
export const lookIntervalMs = 500
/**
 * Every how many looks a quiet link is pinged. What idle instances cost Redis is mostly that pings wake it up: the two links of an instance
 * are made at the same time, so their pings wake it up once.
 */
const looksPerPing = 4
/** A link on which something came within this time is no quiet one (milliseconds). */
const quietMs = 250
/** A link on which nothing came for so long did not answer a ping, and is pinged at each look. */
const overdueMs = quietMs + (looksPerPing - 1) * lookIntervalMs

/** When something came on a connection last: tells whether it lives, and whether a ping is needed to find out. */
export class Liveness {
  #lastSign = performance.now()
  #lastLook = performance.now()
  #lastReceived = 0
  #looks = 0

  /** Something came, or the connection is new. */
  sign (): void { this.#lastSign = performance.now() }

  /**
   * Called every `lookIntervalMs` with the number of bytes that came on the connection. Tells for how long nothing came, and whether to
   * ping now.
   */
  look (received: number): { readonly silentMs: number, readonly ping: boolean } {
    const now = performance.now()
    // Part of an answer came. Or this process stalled, not Redis: answers wait in the socket, and are read after this timer.
    if (now - this.#lastLook > 4 * lookIntervalMs || received !== this.#lastReceived) this.#lastSign = now
    this.#lastLook = now
    this.#lastReceived = received
    const silentMs = now - this.#lastSign
    return { silentMs, ping: silentMs >= (++this.#looks % looksPerPing === 0 ? quietMs : overdueMs) }
  }
}
