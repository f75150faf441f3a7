import { defaultIdleMs, maxPongMs } from './limits.ts'

/**
 * Notices a dead connection, for which TCP would take minutes. A page sees no protocol pings, so a ping of the framed protocol asks a
 * connection that is quiet. Silence alone proves nothing: in a tab that slept, the clock went on and the frames wait. Nor does a late
 * answer while bytes still come, because the answer waits behind a large message. ws tells the bytes; for browsers there is `patience`.
 */
export class Liveness {
  /** A ping was answered in its time. */
  answered = false
  readonly #idleMs: number
  readonly #pongMs: number
  readonly #ping: () => void
  readonly #dead: () => void
  readonly #bytesRead: () => number | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #seenAt = Date.now()
  #asked = false
  #bytes: number | undefined

  constructor (idleMs: number, ping: () => void, dead: () => void, patience: number, bytesRead: () => number | undefined) {
    this.#idleMs = idleMs > 0 ? idleMs : defaultIdleMs
    this.#pongMs = Math.min(maxPongMs, this.#idleMs) * patience
    this.#ping = ping
    this.#dead = dead
    this.#bytesRead = bytesRead
    this.#arm(this.#idleMs)
  }

  /** Something came. Called for every frame, so it only notes the time: the timer looks at it later. */
  seen (): void {
    this.#seenAt = Date.now()
    if (this.#asked) this.answered = true
    this.#asked = false
  }

  /** Asks now, unless an answer is due already. */
  probe (): void {
    if (this.#asked) return
    this.#asked = true
    this.#awaitPong()
    this.#ping()
  }

  stop (): void {
    clearTimeout(this.#timer)
  }

  #awaitPong (): void {
    this.#bytes = this.#bytesRead()
    this.#arm(this.#pongMs)
  }

  #arm (ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      if (this.#asked) return this.#bytesRead() === this.#bytes ? this.#dead() : this.#awaitPong()
      // At most `#idleMs`: the clock may have been set back.
      const left = Math.min(this.#seenAt + this.#idleMs - Date.now(), this.#idleMs)
      if (left > 0) this.#arm(left)
      else this.probe()
    }, ms)
  }
}
