import { PauseReason } from './intake-budget.ts'
import type { ConnectionIntake } from './intake.ts'

export interface InboundLimits {
  /** A connection with more messages waiting than this is not read. */
  readonly maxQueuedMessages: number
  readonly maxQueuedBytes: number
  readonly options: { readonly maxPayload?: number | undefined }
}

/** A message that was received, and its length. */
export interface Received<Message> { readonly message: Message, readonly bytes: number }

/** A message that waits since then (`performance.now()`). */
interface Waiting<Message> extends Received<Message> { readonly since: number }

/** What a message costs beside its bytes while it is held. */
const overheadBytes = 200
/**
 * How many more messages may come after the socket was paused, from what the network had delivered by then: two chunks full of empty
 * messages, and a margin.
 */
const maxLateMessages = 32_768
const lateBytes = 2_097_152
/** A connection is read again when its buffer is half empty. */
const resumeShare = 0.5

/** Smaller messages share memory with each other: one by one they would cost 200 bytes each beside their own. */
const pooledBytes = 1_024

/** How many bytes of the instance's memory a message of `bytes` bytes takes. */
export function weigh (bytes: number): number {
  return bytes + overheadBytes
}

/**
 * The messages of one connection that wait for its callbacks. When the buffer is full, the connection is not read until half of them are
 * handled. What ws had read by then still comes, and is kept up to a hard limit that only compressed messages can reach.
 */
export class MessageBuffer<Message> {
  readonly #limits: InboundLimits
  #waiting: Array<Waiting<Message>> = []
  #bytes = 0
  readonly #intake: ConnectionIntake

  constructor (limits: InboundLimits, intake: ConnectionIntake) {
    this.#limits = limits
    this.#intake = intake
  }

  get length (): number {
    return this.#waiting.length
  }

  get isEmpty (): boolean {
    return this.#waiting.length === 0
  }

  get bytes (): number {
    return this.#bytes
  }

  /** Returns `false` when the buffer then holds more than its hard limit. */
  push (message: Message, bytes: number): boolean {
    this.#waiting.push({ message, bytes, since: performance.now() })
    this.#bytes += bytes
    this.#intake.hold(weigh(bytes))
    const { maxQueuedMessages, maxQueuedBytes, options: { maxPayload = 0 } } = this.#limits
    // A single message may be as large as `maxPayload` allows.
    if (this.length <= maxQueuedMessages && (this.length === 1 || this.#bytes <= maxQueuedBytes)) return true
    this.#intake.pause(PauseReason.Queue)
    return this.length <= maxQueuedMessages + maxLateMessages && this.#bytes <= 2 * (maxQueuedBytes + maxPayload) + lateBytes
  }

  /** Takes out the oldest message. The caller releases what it weighs, once it is handled. */
  shift (): Waiting<Message> | undefined {
    const next = this.#waiting.shift()
    if (next === undefined) return undefined
    this.#bytes -= next.bytes
    const { maxQueuedMessages, maxQueuedBytes } = this.#limits
    if (this.length === 0 || (this.length <= maxQueuedMessages * resumeShare && this.#bytes <= maxQueuedBytes * resumeShare)) {
      this.#intake.resume(PauseReason.Queue)
    }
    return next
  }

  clear (): void {
    this.#intake.release(this.#bytes + this.length * overheadBytes)
    this.#waiting = []
    this.#bytes = 0
  }
}

/** Copies data that is a small view into a chunk of the network, as ws hands it out: a few bytes that wait would keep 64 KiB in memory. */
export function detached (data: Buffer): Buffer {
  if (data.buffer.byteLength <= 2 * data.length) return data
  if (data.length < pooledBytes) return Buffer.from(data)
  const copy = Buffer.allocUnsafeSlow(data.length)
  copy.set(data)
  return copy
}
