/** While nobody says how often the server pings. */
const defaultIdleMs = 25_000
const maxPongMs = 4_000

/**
 * Notices a dead connection, which TCP would take minutes for. A page sees no protocol pings, so a quiet connection is asked with a ping of
 * our own. Silence alone proves nothing: in a tab that slept, the clock ran and the frames wait.
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

  /** Something came. Cheap, as it is called for every frame: the timer finds out later. */
  seen (): void {
    this.#seenAt = Date.now()
    this.#asked = false
  }

  /** Asks now. */
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
      // At most the whole time: the clock may have been set back.
      const left = Math.min(this.#seenAt + this.#idleMs - Date.now(), this.#idleMs)
      if (left > 0) this.#arm(left)
      else this.probe()
    }, ms)
  }
}
