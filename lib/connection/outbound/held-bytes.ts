import type { Duplex } from 'node:stream'

/** Counts what was written for slow clients and not taken yet. What waits for several of them takes memory once, and counts once. */
export class HeldBytes {
  readonly #slowBytes: number
  /** How many clients each buffer waits for. */
  readonly #buffers = new Map<Buffer, number>()
  #total = 0

  /** A client is slow when more bytes wait for it than `slowBytes`. */
  constructor (slowBytes: number) {
    this.#slowBytes = slowBytes
  }

  get total (): number {
    return this.#total
  }

  /** Writes to a client, and counts the bytes if it is slow, or would be with these. */
  write (stream: Duplex, bytes: Buffer, slow: boolean): void {
    const { writableLength } = stream
    if (!slow && writableLength + bytes.length <= this.#slowBytes) {
      stream.write(bytes)
      return
    }
    const taken = this.#hold(bytes)
    stream.write(bytes, taken)
    // The callback comes later, also where the operating system took everything at once.
    if (stream.writableLength <= writableLength) taken()
  }

  /** Returns what to call when the client took the bytes, or is gone; a second call does nothing. */
  #hold (bytes: Buffer): () => void {
    const others = this.#buffers.get(bytes) ?? 0
    this.#buffers.set(bytes, others + 1)
    if (others === 0) this.#total += bytes.length
    let waiting = true
    return () => {
      if (waiting) this.#release(bytes)
      waiting = false
    }
  }

  #release (bytes: Buffer): void {
    const others = (this.#buffers.get(bytes) ?? 0) - 1
    if (others > 0) {
      this.#buffers.set(bytes, others)
      return
    }
    this.#buffers.delete(bytes)
    this.#total -= bytes.length
  }
}
