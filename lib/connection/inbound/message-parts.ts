import type { WebSocket } from 'ws'
import { LoopShare } from './loop-share.ts'

/*
 * Bounds what ws makes of the bytes that the network brought.
 *
 * The pieces of a message that ws keeps until the message is complete: each costs about 150 bytes beside its data, so that a message of
 * one-byte pieces takes a hundred times its size. Newer releases of ws have limits of their own, which are higher; older ones have none.
 *
 * What is read of a connection that this side ended: the chunk that is being read may hold hundreds of compressed messages, whose inflating
 * would keep a closed process busy for seconds.
 *
 * The messages in one chunk: 64 KiB hold ten thousand empty ones, and each that has to wait takes 200 bytes. So a chunk is read in parts,
 * and the rest of it waits as it came when the connection is not to be read any more. The code that decides this hears of each chunk from
 * here, because a listener of its own on each socket would take 60 bytes of every idle connection.
 *
 * Everything is looked at before it is used; where a release of ws has another shape, only its own limits hold.
 * test/unit/connection/floods.test.ts pins it.
 */

/** Frames of one message. A client that sends a message of the default `maxPayload` in frames of 256 bytes has no more. */
const maxFragments = 4_096
/** Chunks of the network that ws keeps for one frame: more are put together into one, which costs a copy and refuses no client. */
const maxChunks = 1_024
/** The code that ws gives to its error about too many parts. */
export const tooManyParts = 'WS_ERR_TOO_MANY_BUFFERED_PARTS'
const policyViolation = 1008

/** How much of a chunk is read before the `ChunkReader` is asked again, unless one message has more (bytes). */
const partBytes = 1_024
/** State of a receiver that waits for the rest of a payload. */
const inPayload = 4

type Done = (error?: Error) => void

/** Says whether a connection is read. */
export interface ChunkReader {
  /** This side ended the connection, and the network socket is gone: nobody needs what it brought. */
  readonly isOver: boolean
  /** If not, `goOn` is called later, and the reader is asked again. */
  mayRead (goOn: () => void): boolean
  /** A frame came that is a part of a message, and not the last one. */
  fragmentReceived (): void
  /** A chunk came from the network, and the messages that it completes were handed out, or wait until the connection is read. */
  chunkReceived (bytes: number): void
}

const reader = Symbol('reader')
/** One for this thread, as there is one event loop. */
const loopShare = new LoopShare()

interface Receiver {
  readonly _fragments: readonly Buffer[]
  readonly _fin: boolean
  _buffers: Buffer[]
  _bufferedBytes: number
  readonly _payloadLength: number
  readonly _state: number
  [reader]?: ChunkReader
  dataMessage (done: Done): void
  _write (chunk: Buffer, encoding: string, done: Done): void
  readonly createError: (Class: ErrorConstructor, message: string, prefix: boolean, closeCode: number, code: string) => Error
}

/** Returns whether the release of ws is one that this file knows. */
export function boundParts (socket: WebSocket, chunkReader: ChunkReader): boolean {
  const { _receiver: receiver } = socket as unknown as { readonly _receiver?: Partial<Receiver> }
  if (!isReceiver(receiver)) return false
  // Two functions for all receivers.
  receiver.dataMessage = dataMessage
  receiver._write = write
  receiver[reader] = chunkReader
  return true
}

/** Runs in place of the method of ws when a frame of a message is complete. */
function dataMessage (this: Receiver, done: Done): void {
  if (!this._fin) this[reader]?.fragmentReceived()
  if (this[reader]?.isOver === true) {
    this._buffers = []
    this._bufferedBytes = 0
  }
  if (this._fragments.length <= maxFragments) return original(this).dataMessage.call(this, done)
  done(this.createError(RangeError, 'Too many message fragments', false, policyViolation, tooManyParts))
}

function write (this: Receiver, chunk: Buffer, encoding: string, done: Done): void {
  if (this._buffers.length >= maxChunks) this._buffers = [Buffer.concat(this._buffers)]
  if (chunk.length <= partBytes) original(this)._write.call(this, chunk, encoding, done)
  else writeParts(this, chunk, encoding, done)
  this[reader]?.chunkReceived(chunk.length)
}

function writeParts (receiver: Receiver, chunk: Buffer, encoding: string, done: Done): void {
  let at = 0
  const goOn = (error?: Error): void => {
    if (error !== undefined || at === chunk.length || receiver[reader]?.isOver === true) return done(error)
    if (receiver[reader]?.mayRead(goOn) === false || !loopShare.hasTime(goOn)) return
    // The rest of one message is not cut, as ws would have to put it together again.
    const missing = receiver._state === inPayload ? receiver._payloadLength - receiver._bufferedBytes : 0
    const part = chunk.subarray(at, at + Math.max(partBytes, missing))
    at += part.length
    original(receiver)._write.call(receiver, part, encoding, goOn)
  }
  goOn()
}

function original (receiver: Receiver): Receiver {
  return Object.getPrototypeOf(receiver) as Receiver
}

function isReceiver (receiver: Partial<Receiver> | undefined): receiver is Receiver {
  return Array.isArray(receiver?._fragments) && Array.isArray(receiver._buffers) && typeof receiver._bufferedBytes === 'number' &&
    typeof receiver._payloadLength === 'number' && typeof receiver._state === 'number' && typeof receiver._fin === 'boolean' &&
    typeof receiver.dataMessage === 'function' && typeof receiver._write === 'function' && typeof receiver.createError === 'function'
}
