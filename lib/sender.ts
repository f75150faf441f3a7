import { randomBytes } from 'node:crypto'
import type { Envelope, Target } from './backplane/backplane.ts'
import { WebsocketGroupsError } from './errors.ts'
import type { BroadcastOptions, Data } from './types.ts'

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** Ten characters of base 62, drawn anew at every boot: 8 * 10^17 ids. */
export function drawId (): string {
  let id = ''
  while (id.length < 10) {
    for (const byte of randomBytes(16)) {
      // 248 is the largest multiple of 62 in a byte: taking more would favour the first letters.
      if (byte < 248 && id.length < 10) id += alphabet[byte % 62]
    }
  }
  return id
}

/** Makes the envelopes of one origin, each with the next sequence number. */
export class Sender {
  #origin = drawId()
  #sequence = 0

  get origin (): string {
    return this.#origin
  }

  /** Someone else has this id already. */
  redraw (): void {
    this.#origin = drawId()
  }

  message (targets: readonly Target[], data: Data, except: readonly string[]): Envelope {
    return this.#envelope('message', targets, '', data, except)
  }

  command (kind: 'request' | 'reply', target: Target, command: string, data: Data = ''): Envelope {
    return this.#envelope(kind, [target], command, data, [])
  }

  #envelope (kind: Envelope['kind'], targets: readonly Target[], command: string, data: Data, except: readonly string[]): Envelope {
    return {
      origin: this.origin,
      sequence: ++this.#sequence,
      kind,
      target: targets[0] ?? { kind: 'all', name: '' },
      shared: targets.length > 1,
      except,
      command,
      binary: typeof data !== 'string',
      payload: toBuffer(data)
    }
  }
}

export function exceptIds (except: BroadcastOptions['except']): readonly string[] {
  if (except === undefined) return []
  const list = Array.isArray(except) ? except : [except]
  return list.map((one: { id: string } | string) => typeof one === 'string' ? one : one.id)
}

/** @throws {WebsocketGroupsError} WSG_DATA_INVALID */
export function toBuffer (data: Data): Buffer {
  if (typeof data === 'string') return Buffer.from(data)
  if (Buffer.isBuffer(data)) return data
  if (data instanceof Uint8Array) return Buffer.from(data.buffer, data.byteOffset, data.byteLength)
  throw new WebsocketGroupsError('WSG_DATA_INVALID', `got ${data === null ? 'null' : typeof data}`)
}
