/** How often a link is looked at (milliseconds). */
export const lookIntervalMs = 1_000

/** What came on a connection lately: tells whether it lives, and whether a ping is needed to find out. */
export class Liveness {
  #lastSign = performance.now()
  #lastLook = performance.now()
  #lastReceived = 0
  /** Calls that were answered, and messages that came, since the last look. */
  #answers = 0
  /** Whether one of them may answer a ping. */
  #pinged = false

  /** Something came, or the connection is new. */
  sign (): void {
    this.#lastSign = performance.now()
    this.#answers++
  }

  /**
   * Called every `lookIntervalMs` with the number of bytes that came on the connection. Tells for how long nothing came, and whether to
   * ping now: nothing came since the last look but the answer to a ping.
   */
  look (received: number): { readonly silentMs: number, readonly ping: boolean } {
    const now = performance.now()
    // Part of an answer came. Or this process stalled, not Redis: answers wait in the socket, and are read after this timer.
    if (now - this.#lastLook > 2 * lookIntervalMs || received !== this.#lastReceived) this.#lastSign = now
    this.#lastLook = now
    this.#lastReceived = received
    this.#pinged = this.#answers <= Number(this.#pinged)
    this.#answers = 0
    return { silentMs: now - this.#lastSign, ping: this.#pinged }
  }
}
