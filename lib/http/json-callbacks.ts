import { extraMessages, isPoisoned, poisoned, tooComplex } from '../connection/inbound/json-limits.ts'
import { WebsocketGroupsError } from '../errors.ts'
import { copyCallbacks } from '../messages/callbacks.ts'
import type { ConnectionCallbacks, JsonCallbacks } from '../route-types.ts'

/** Makes callbacks that take any message from callbacks whose `onMessage` takes parsed JSON. */
export function parsingJson (callbacks: JsonCallbacks): ConnectionCallbacks {
  return { ...copyCallbacks(callbacks), onMessage: (connection, data) => callbacks.onMessage(connection, parse(data)) }
}

/** @throws {WebsocketGroupsError} WSG_MESSAGE_INVALID */
function parse (data: string | Buffer): unknown {
  if (typeof data !== 'string') throw new WebsocketGroupsError('WSG_MESSAGE_INVALID', 'binary, but this route takes JSON')
  if (extraMessages(Buffer.from(data)) === undefined) throw new WebsocketGroupsError('WSG_MESSAGE_INVALID', tooComplex)
  let value: unknown
  try {
    value = JSON.parse(data)
  } catch (cause) {
    throw new WebsocketGroupsError('WSG_MESSAGE_INVALID', 'not JSON', { cause })
  }
  if (isPoisoned(value)) throw new WebsocketGroupsError('WSG_MESSAGE_INVALID', poisoned)
  return value
}
