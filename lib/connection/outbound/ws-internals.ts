import type { Duplex } from 'node:stream'
import type { ZlibOptions } from 'node:zlib'
import type { WebSocket } from 'ws'
import type { Deflate } from './ws-frame.ts'

/*
 * What this package needs of ws beyond its documented API, which cannot put several messages into one write. Everything is looked at before
 * it is used: where a release of ws has another shape, connections use `WebSocket.send` and are slower, nothing else.
 * test/unit/connection/outbound/ws-internals.test.ts pins the shape.
 */

const owner = Symbol('outbound')

type CloseFrame = (code: unknown, reason: unknown, mask: unknown, done: unknown) => void

interface Internals {
  readonly _socket?: Partial<Duplex>
  readonly _sender?: { _socket?: unknown, close?: CloseFrame, [owner]?: BeforeClose }
  readonly _extensions?: Readonly<Record<string, DeflateExtension | undefined>>
}

interface DeflateExtension {
  readonly params?: { readonly server_max_window_bits?: unknown }
  readonly _threshold?: unknown
  readonly _options?: { readonly zlibDeflateOptions?: ZlibOptions }
}

/**
 * Told that ws is about to write the close frame, by this side or as the answer to the client's: after that there must be no message.
 */
export interface BeforeClose { beforeClose (code: number, reason: string): void }

interface Wire {
  readonly stream: Duplex
  readonly deflate: Deflate | undefined
}

/** RFC 6455 7.1.5: what a close frame without a code stands for. */
const noStatus = 1005
const defaultWindowBits = 15
/** zlib turns 8 into 9, which the client could not read. */
const minWindowBits = 9

/** Returns the stream to write frames to; `undefined` when this release of ws has a shape that is not known here. */
export function openWire (socket: WebSocket, beforeClose: BeforeClose): Wire | undefined {
  const { _socket: stream, _sender: sender, _extensions: extensions } = socket as unknown as Internals
  if (!isStream(stream) || sender?._socket !== stream || typeof sender.close !== 'function') return undefined
  if (typeof extensions !== 'object') return undefined
  const extension = extensions['permessage-deflate']
  const deflate = extension === undefined ? undefined : deflateOf(extension)
  if (extension !== undefined && deflate === undefined) return undefined
  sender[owner] = beforeClose
  sender.close = closeAfterMessages
  return { stream, deflate }
}

/** One function for all senders; each knows its connection. */
function closeAfterMessages (this: NonNullable<Internals['_sender']>, ...args: Parameters<CloseFrame>): void {
  const [code, reason] = args
  this[owner]?.beforeClose(typeof code === 'number' ? code : noStatus, String(reason ?? ''))
  const { close } = Object.getPrototypeOf(this) as { close: CloseFrame }
  close.apply(this, args)
}

function isStream (stream: Partial<Duplex> | undefined): stream is Duplex {
  return typeof stream?.write === 'function' && typeof stream.once === 'function' && typeof stream.writableLength === 'number'
}

/** With `threshold: Infinity` nothing is compressed: clients that negotiated compression read plain messages, too. */
function deflateOf ({ params, _threshold: threshold, _options: options }: DeflateExtension): Deflate | undefined {
  const bits = params?.server_max_window_bits ?? defaultWindowBits
  if (typeof params !== 'object' || typeof bits !== 'number' || typeof threshold !== 'number') return undefined
  return {
    windowBits: Math.max(bits, minWindowBits),
    threshold: bits < minWindowBits ? Infinity : threshold,
    options: options?.zlibDeflateOptions ?? {}
  }
}
