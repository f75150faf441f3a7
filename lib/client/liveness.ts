/** When the server does not say how often it pings. */
const defaultIdleMs = 25_000
const maxPongMs = 4_000

/**
 * Notices a dead connection, for which TCP would take minutes. A page sees no protocol pings, so a ping of the framed protocol asks a
 * connection that is quiet. Silence alone proves nothing: in a tab that slept, the clock went on and the frames wait.
 */
export class Liveness {
  readonly #idleMs: number
  readonly #ping: () => void
  readonly #dead: () => void
  #timer: ReturnType<typeof setTimeout> | undefined
  #seenAt = Date.now()
  #asked = false

  constructor (idleMs: number, ping: () => void, dead: () => void) {
    this.#idleMs = idleMs > 0 ? idleMs : defaultIdleMs
    this.#ping = ping
    this.#dead = dead
    this.#arm(this.#idleMs)
  }

  /** Something came. Called for every frame, so it only notes the time: the timer looks at it later. */
  seen (): void {
    this.#seenAt = Date.now()
    this.#asked = false
  }

  /** Asks now, unless an answer is due already. */
  probe (): void {
    if (this.#asked) return
    this.#asked = true
    this.#arm(Math.min(maxPongMs, this.#idleMs))
    this.#ping()
  }

  stop (): void {
    clearTimeout(this.#timer)
  }

  #arm (ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      if (this.#asked) return this.#dead()
      // At most `#idleMs`: the clock may have been set back.
      const left = Math.min(this.#seenAt + this.#idleMs - Date.now(), this.#idleMs)
      if (left > 0) this.#arm(left)
      else this.probe()
    }, ms)
  }
}
