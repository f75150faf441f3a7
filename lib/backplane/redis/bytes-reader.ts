/** Reads one value after the other. A read beyond the end sets `failed` and returns nothing, instead of throwing. */
export class BytesReader {
  at: number
  failed = false
  readonly #bytes: Buffer

  constructor (bytes: Buffer, at: number) {
    this.#bytes = bytes
    this.at = at
  }

  uint (size: number): number {
    return this.#advance(size) ? this.#bytes.readUIntBE(this.at - size, size) : 0
  }

  text (size: number): string {
    return this.#advance(size) ? this.#bytes.toString('utf8', this.at - size, this.at) : ''
  }

  /** The next bytes, as a slice. */
  bytes (size: number): Buffer {
    return this.#advance(size) ? this.#bytes.subarray(this.at - size, this.at) : this.#bytes.subarray(0, 0)
  }

  /** The byte that comes next. */
  get next (): number | undefined {
    return this.#bytes[this.at]
  }

  #advance (size: number): boolean {
    if (this.failed || this.at + size > this.#bytes.length) this.failed = true
    else this.at += size
    return !this.failed
  }
}
