import { extraMessages } from './json-limits.ts'

/** The data of a message that came as a JSON value inside a frame, so that the value need not be parsed again. */
export class JsonMessage {
  readonly value: unknown
  /** How long the message was, with its frame. */
  readonly bytes: number

  constructor (value: unknown, bytes: number) {
    this.value = value
    this.bytes = bytes
  }

  /** The same message as text. */
  toString (): string {
    return JSON.stringify(this.value)
  }
}

/** How events begin: cheap to look for, and rare in messages of other kinds. */
const eventStart = '{"type":"'
const eventBytes = Buffer.from(eventStart)

/**
 * Whether the payload of a text message is an event: JSON that may stand inside a frame as it is. Anybody may have sent the text, so all
 * of it is looked at. What is costly to parse stays text.
 */
export function isJsonEvent (payload: Uint8Array | string): boolean {
  if (!startsAsEvent(payload)) return false
  const bytes = typeof payload === 'string' ? Buffer.from(payload) : Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength)
  if (extraMessages(bytes) === undefined) return false
  try {
    JSON.parse(bytes.toString())
    return true
  } catch {
    return false
  }
}

function startsAsEvent (payload: Uint8Array | string): boolean {
  if (typeof payload === 'string') return payload.startsWith(eventStart)
  return payload.length > eventBytes.length && eventBytes.every((byte, at) => payload[at] === byte)
}
