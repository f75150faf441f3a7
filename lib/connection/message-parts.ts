import type { WebSocket } from 'ws'

/*
 * Bounds the pieces that ws keeps of a message until it is complete. Each costs about 150 bytes beside what it carries, so that a message
 * of one-byte pieces takes a hundred times its size. Newer releases of ws have limits of their own, which are higher; older ones have none.
 * Everything is looked at before it is used; where a release of ws has another shape, only its own limits hold.
 * test/unit/connection/floods.test.ts pins it.
 */

/** Frames of one message. A client that sends a message of the default `maxPayload` in frames of 256 bytes has no more. */
const maxFragments = 4_096
/** Chunks that came from the network for one frame: more are put together to one, which costs a copy, and no client anything. */
const maxChunks = 1_024
/** As ws calls it. */
export const tooManyParts = 'WS_ERR_TOO_MANY_BUFFERED_PARTS'
const policyViolation = 1008

type Done = (error?: Error) => void

interface Receiver {
  readonly _fragments: readonly Buffer[]
  _buffers: Buffer[]
  dataMessage (done: Done): void
  _write (chunk: Buffer, encoding: string, done: Done): void
  readonly createError: (Class: ErrorConstructor, message: string, prefix: boolean, closeCode: number, code: string) => Error
}

/** Returns whether the release of ws is one that this file knows. */
export function boundParts (socket: WebSocket): boolean {
  const { _receiver: receiver } = socket as unknown as { readonly _receiver?: Partial<Receiver> }
  if (!isReceiver(receiver)) return false
  // Two functions for all receivers.
  receiver.dataMessage = dataMessage
  receiver._write = write
  return true
}

/** A frame of a message is complete. */
function dataMessage (this: Receiver, done: Done): void {
  if (this._fragments.length <= maxFragments) return original(this).dataMessage.call(this, done)
  done(this.createError(RangeError, 'Too many message fragments', false, policyViolation, tooManyParts))
}

function write (this: Receiver, chunk: Buffer, encoding: string, done: Done): void {
  if (this._buffers.length >= maxChunks) this._buffers = [Buffer.concat(this._buffers)]
  original(this)._write.call(this, chunk, encoding, done)
}

function original (receiver: Receiver): Receiver {
  return Object.getPrototypeOf(receiver) as Receiver
}

function isReceiver (receiver: Partial<Receiver> | undefined): receiver is Receiver {
  return Array.isArray(receiver?._fragments) && Array.isArray(receiver._buffers) && typeof receiver.dataMessage === 'function' &&
    typeof receiver._write === 'function' && typeof receiver.createError === 'function'
}
