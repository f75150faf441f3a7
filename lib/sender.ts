import { types } from 'node:util'
import type { Envelope, Target } from './backplane/backplane.ts'
import { WebsocketGroupsError } from './errors.ts'
import { drawId, ownerOf } from './ids.ts'
import type { BroadcastOptions, Data } from './types.ts'

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

  /** @throws {WebsocketGroupsError} WSG_DATA_INVALID, WSG_CONFLATION_KEY_INVALID */
  message (targets: readonly Target[], data: Data, { except, volatile = false, conflationKey }: BroadcastOptions): Envelope {
    if (conflationKey !== undefined) assertConflationKey(conflationKey)
    return { ...this.#envelope('message', targets, '', data), except: exceptIds(except), volatile: volatile || conflationKey !== undefined, ...(conflationKey === undefined ? {} : { conflationKey }) }
  }

  command (kind: Exclude<Envelope['kind'], 'message'>, target: Target, command: string, data: Data = ''): Envelope {
    return this.#envelope(kind, [target], command, data)
  }

  #envelope (kind: Envelope['kind'], targets: readonly Target[], command: string, data: Data): Envelope {
    return {
      origin: this.origin,
      sequence: ++this.#sequence,
      kind,
      target: targets[0] ?? { kind: 'all', name: '' },
      shared: targets.length > 1,
      except: [],
      command,
      binary: typeof data !== 'string',
      payload: toBuffer(data)
    }
  }
}

/** The ids in `except`. What is no connection's id excludes nobody, and does not travel. */
function exceptIds (except: BroadcastOptions['except']): readonly string[] {
  if (except === undefined) return []
  const list = Array.isArray(except) ? except : [except]
  return list.map((one: { id: string } | string) => typeof one === 'string' ? one : one.id).filter(id => ownerOf(id) !== undefined)
}

/**
 * A copy: the caller may use its bytes again once the call returned, and a message may have to wait for its delivery.
 * @throws {WebsocketGroupsError} WSG_DATA_INVALID
 */
export function toBuffer (data: Data): Buffer {
  assertData(data)
  return Buffer.from(data)
}

/** @throws {WebsocketGroupsError} WSG_DATA_INVALID */
export function assertData (data: unknown): asserts data is Data {
  if (typeof data !== 'string' && !types.isUint8Array(data)) throw new WebsocketGroupsError('WSG_DATA_INVALID', `got ${data === null ? 'null' : typeof data}`)
}

const maxConflationKeyBytes = 255

function assertConflationKey (key: unknown): void {
  if (typeof key === 'string' && key !== '' && Buffer.byteLength(key) <= maxConflationKeyBytes) return
  throw new WebsocketGroupsError('WSG_CONFLATION_KEY_INVALID')
}
