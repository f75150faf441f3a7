import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'

/*
 * What this package needs of the receiving half of ws beyond its documented API: how much of an unfinished message it holds. Everything is
 * checked before use; where a release of ws has another shape, unfinished messages are not counted.
 * test/unit/connection/outbound/ws-internals.test.ts pins the shape.
 */

/** What a fragment, or a chunk of the network, costs beside its bytes. */
const pieceBytes = 100

interface Internals {
  readonly _socket?: Partial<Duplex>
  readonly _receiver?: Receiver
}

interface Receiver {
  readonly _bufferedBytes?: unknown
  readonly _messageLength?: unknown
  readonly _buffers?: { readonly length: number }
  readonly _fragments?: { readonly length: number }
}

/** Calls back when the network socket is closed. Some of what it brought may not be read yet. */
export function onceStreamClosed (socket: WebSocket, callback: () => void): void {
  const { _socket: stream } = socket as unknown as Internals
  stream?.once?.('close', callback)
}

/** Whether the network socket was destroyed; `false` where that cannot be told. */
export function isStreamGone (socket: WebSocket): boolean {
  return (socket as unknown as Internals)._socket?.destroyed === true
}

/** The bytes that ws holds of a message that is not complete yet. */
export function unfinishedBytes (socket: WebSocket): number {
  const receiver = receiverOf(socket)
  if (receiver === undefined) return 0
  const bytes = receiver._bufferedBytes + receiver._messageLength
  return bytes === 0 ? 0 : bytes + pieceBytes * (receiver._buffers.length + receiver._fragments.length)
}

type KnownReceiver =
  { readonly _bufferedBytes: number, readonly _messageLength: number } &
  Required<Pick<Receiver, '_buffers' | '_fragments'>>

function receiverOf (socket: WebSocket): KnownReceiver | undefined {
  const { _receiver: receiver } = socket as unknown as Internals
  const known = typeof receiver?._bufferedBytes === 'number' && typeof receiver._messageLength === 'number' &&
    typeof receiver._buffers?.length === 'number' && typeof receiver._fragments?.length === 'number'
  return known ? receiver as KnownReceiver : undefined
}
