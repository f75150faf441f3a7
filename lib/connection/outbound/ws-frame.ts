import { constants, deflateRawSync, type ZlibOptions } from 'node:zlib'

/**
 * How messages are written for a kind of connection. All connections of a kind have the same object: a message that is encoded for one of
 * them is right for all.
 */
export interface Encoding {
  /** The client speaks the framed protocol. */
  readonly framed: boolean
  /** A framed client that takes events as JSON values. */
  readonly json: boolean
  /** Set when permessage-deflate was negotiated (RFC 7692). */
  readonly deflate: Deflate | undefined
}

export interface Deflate {
  readonly windowBits: number
  /** Smaller payloads are not compressed (bytes). */
  readonly threshold: number
  readonly options: ZlibOptions
}

/** Larger payloads are not compressed, as compressing holds up the event loop: some 10 ms per MiB (bytes). */
const maxDeflated = 131_072
const fin = 0x80
const rsv1 = 0x40
/** What Z_SYNC_FLUSH ends with, and RFC 7692 7.2.1 leaves out: 00 00 ff ff. */
const flushTail = 4

/** One whole, unmasked WebSocket message in one frame (RFC 6455 5.2). */
export function encodeWsFrame (payload: Uint8Array | string, binary: boolean, deflate?: Deflate): Buffer {
  const length = typeof payload === 'string' ? Buffer.byteLength(payload) : payload.length
  const opcode = binary ? 2 : 1
  if (deflate === undefined || length < deflate.threshold || length > maxDeflated) return frame(fin | opcode, payload, length)
  // Compressed without a context, so that the bytes are the same for all clients. Clients that keep a context can read them too.
  const deflated = deflateRawSync(payload, { ...deflate.options, windowBits: deflate.windowBits, finishFlush: constants.Z_SYNC_FLUSH })
  return frame(fin | rsv1 | opcode, deflated.subarray(0, -flushTail), deflated.length - flushTail)
}

function frame (first: number, payload: Uint8Array | string, length: number): Buffer {
  const at = length < 126 ? 2 : length < 65_536 ? 4 : 10
  const bytes = Buffer.allocUnsafe(at + length)
  bytes[0] = first
  if (at === 2) {
    bytes[1] = length
  } else if (at === 4) {
    bytes[1] = 126
    bytes.writeUInt16BE(length, 2)
  } else {
    bytes[1] = 127
    bytes.writeUIntBE(0, 2, 2)
    bytes.writeUIntBE(length, 4, 6)
  }
  if (typeof payload === 'string') bytes.write(payload, at)
  else bytes.set(payload, at)
  return bytes
}
