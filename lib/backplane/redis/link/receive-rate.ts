/** The estimate is the best of this many answers, as any of them may have been held up by something else. */
const maxSamples = 4

/**
 * How quickly a link brings answers, judged by the pieces that each answer comes in. The time until the first piece does not count, so a
 * busy Redis is never taken for a slow link.
 */
export class ReceiveRate {
  /** How long this process had nothing to do (milliseconds): while it is busy, pieces are late on any link. */
  readonly #idleMs: () => number
  /** An answer of more bytes than this that comes in one piece came quickly. */
  readonly #pieceBytes: number
  /** In bytes per millisecond, the latest last. */
  readonly #samples: number[] = []
  /** The first piece of the present answer, and the pieces after it. */
  #first: { readonly bytes: number, readonly at: number } | undefined
  #later = { bytes: 0, at: 0 }

  constructor (idleMs: () => number, pieceBytes: number) {
    this.#idleMs = idleMs
    this.#pieceBytes = pieceBytes
  }

  /** Bytes per millisecond; `Infinity` while nothing is known. */
  get estimate (): number {
    return this.#samples.length === 0 ? Infinity : Math.max(...this.#samples)
  }

  reset (): void {
    this.#samples.length = 0
    this.#first = undefined
  }

  /** A piece of an answer came. */
  received (bytes: number): void {
    const at = this.#idleMs()
    if (this.#first === undefined) {
      this.#first = { bytes, at }
      this.#later = { bytes: 0, at }
    } else {
      this.#later = { bytes: this.#later.bytes + bytes, at }
    }
  }

  /** The answer is complete: the next piece belongs to the next answer. */
  answered (): void {
    const [first, later] = [this.#first, this.#later]
    this.#first = undefined
    if (first === undefined) return
    if (later.bytes > 0) this.#add(later.bytes / (later.at - first.at))
    else if (first.bytes > this.#pieceBytes) this.#add(Infinity)
  }

  #add (sample: number): void {
    if (this.#samples.push(sample) > maxSamples) this.#samples.shift()
  }
}
