import { extraMessages, tooComplex } from '../connection/inbound/json-limits.ts'
import { JsonMessage } from '../connection/inbound/json-message.ts'
import { WebsocketGroupsError } from '../errors.ts'
import type { JsonCallbacks } from '../route-types.ts'
import type { Connection } from '../types.ts'

/** Hands the values of messages to a handler that asked for JSON. */
export class JsonReceiver {
  readonly #callbacks: JsonCallbacks

  constructor (callbacks: JsonCallbacks) {
    this.#callbacks = callbacks
  }

  /** @throws {WebsocketGroupsError} WSG_MESSAGE_INVALID, and what the handler throws */
  onMessage (connection: Connection, data: string | Buffer | JsonMessage): unknown {
    return this.#callbacks.onMessage(connection, valueOf(data))
  }
}

function valueOf (data: string | Buffer | JsonMessage): unknown {
  if (data instanceof JsonMessage) return data.value
  if (typeof data !== 'string') throw new WebsocketGroupsError('WSG_MESSAGE_INVALID', 'binary, where JSON is asked for')
  if (extraMessages(Buffer.from(data)) === undefined) throw new WebsocketGroupsError('WSG_MESSAGE_INVALID', tooComplex)
  try {
    return JSON.parse(data)
  } catch (cause) {
    throw new WebsocketGroupsError('WSG_MESSAGE_INVALID', 'not JSON', { cause })
  }
}
