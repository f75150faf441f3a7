import { types } from 'node:util'
import type { Envelope } from '../../backplane/backplane.ts'
import type { ServerFrame } from '../../protocol/frames.ts'
import { encodeFrame, encodeMessage } from '../framed/frame-codec.ts'
import { WebsocketGroupsError } from '../../errors.ts'
import type { Data } from '../../types.ts'
import { formatPosition } from '../../backplane/position.ts'
import { Batch } from './batch.ts'
import { labelOf } from '../../backplane/user-log.ts'
import { encodeWsFrame, type Encoding } from './ws-frame.ts'

/** @throws {WebsocketGroupsError} WSG_DATA_INVALID */
export function assertData (data: unknown): asserts data is Data {
  if (typeof data === 'string' || types.isUint8Array(data)) return
  throw new WebsocketGroupsError('WSG_DATA_INVALID', `got ${data === null ? 'null' : typeof data}`)
}

/** @throws {WebsocketGroupsError} WSG_DATA_INVALID for what JSON cannot express */
export function toJson (value: unknown): string {
  let text: string | undefined
  try {
    text = JSON.stringify(value) as string | undefined
  } catch (error) {
    throw new WebsocketGroupsError('WSG_DATA_INVALID', 'JSON cannot express the value', { cause: error })
  }
  if (text !== undefined) return text
  throw new WebsocketGroupsError('WSG_DATA_INVALID', `JSON has no ${typeof value}`)
}

/** The payload of a WebSocket message. */
interface Message {
  readonly payload: Buffer | string
  readonly binary: boolean
}

/** What the payload of a message depends on. */
type ClientKind = Pick<Encoding, 'framed' | 'json'>

/** One message on its way to any number of connections: encoded once for each kind of connection. */
export class OutboundMessage {
  /** A slow client may miss the message. */
  readonly volatile: boolean
  /** A slow client gets only the latest message with this key; '' for none. */
  readonly conflationKey: string
  readonly #message: (kind: ClientKind) => Message
  readonly #frames = new Map<Encoding, Buffer>()
  // Members of a group have mostly got the same messages before, so the latest batch mostly fits the next connection, too.
  #encoding: Encoding | undefined
  #previous: Batch | undefined
  #batch: Batch | undefined
  #batches: Map<Encoding, Map<Batch | undefined, Batch>> | undefined

  private constructor (message: (kind: ClientKind) => Message, volatile = false, conflationKey = '') {
    this.#message = message
    this.volatile = volatile
    this.conflationKey = conflationKey
  }

  /** Raw clients get the bytes that were sent, framed ones a `message` frame. */
  static ofEnvelope (envelope: Envelope): OutboundMessage {
    const { payload, binary, target, position, volatile, conflationKey, at } = envelope
    const framedPayload = (json: boolean): Buffer => encodeMessage(payload, binary, {
      group: target.kind === 'group' ? labelOf(target.name) : undefined,
      at,
      ...(position === undefined ? {} : { position: formatPosition(position), copy: copyOf(envelope) })
    }, json)
    const message = ({ framed, json }: ClientKind): Message =>
      framed ? { payload: framedPayload(json), binary: false } : { payload, binary }
    return new OutboundMessage(message, volatile, conflationKey)
  }

  /** A frame of the protocol, for framed clients alone. */
  static ofFrame (frame: ServerFrame): OutboundMessage {
    const message = { payload: encodeFrame(frame), binary: false }
    return new OutboundMessage(() => message)
  }

  message (kind: ClientKind): Message {
    return this.#message(kind)
  }

  frame (encoding: Encoding): Buffer {
    let frame = this.#frames.get(encoding)
    if (frame === undefined) {
      const { payload, binary } = this.#message(encoding)
      this.#frames.set(encoding, frame = encodeWsFrame(payload, binary, encoding.deflate))
    }
    return frame
  }

  /** The batch shared by all connections of a kind that had `previous` and now get this message. */
  batchAfter (previous: Batch | undefined, encoding: Encoding): Batch {
    if (this.#batch !== undefined && this.#previous === previous && this.#encoding === encoding) return this.#batch
    this.#batches ??= new Map()
    let ofKind = this.#batches.get(encoding)
    if (ofKind === undefined) this.#batches.set(encoding, ofKind = new Map())
    let batch = ofKind.get(previous)
    if (batch === undefined) ofKind.set(previous, batch = new Batch(previous, this.frame(encoding)))
    this.#encoding = encoding
    this.#previous = previous
    return (this.#batch = batch)
  }
}

/** The name by which clients recognize the copies of a message to several groups. */
function copyOf ({ shared, origin, sequence }: Envelope): string | undefined {
  return shared ? `${origin}:${sequence}` : undefined
}
