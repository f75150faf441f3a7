/**
 * The frames that a connection got since its last write: the latest frame, and the batch before it. Connections that got the same frames in
 * the same order share the batch, so its bytes are put together once for all of them, whatever groups the frames came from.
 */
export class Batch {
  readonly bytes: number
  readonly messages: number
  #previous: Batch | undefined
  #buffer: Buffer
  #joined: boolean

  constructor (previous: Batch | undefined, frame: Buffer) {
    this.#previous = previous
    this.#buffer = frame
    this.#joined = previous === undefined
    this.messages = (previous?.messages ?? 0) + 1
    this.bytes = (previous?.bytes ?? 0) + frame.length
  }

  /** All frames, oldest first. */
  get buffer (): Buffer {
    if (this.#joined) return this.#buffer
    const parts: Buffer[] = []
    let batch: Batch | undefined = this
    for (; batch !== undefined; batch = batch.#joined ? undefined : batch.#previous) parts.push(batch.#buffer)
    this.#buffer = Buffer.concat(parts.reverse(), this.bytes)
    this.#joined = true
    this.#previous = undefined
    return this.#buffer
  }
}
