import { extraMessages, isPoisoned, poisoned, tooComplex } from '../connection/inbound/json-limits.ts'
import { JsonMessage } from '../connection/inbound/json-message.ts'
import { describeError } from '../connection/error-answer.ts'
import { Refusal, type MessageAnswer, type Reply, type ReplyData } from '../connection/framed/message-answer.ts'
import type { Data } from '../types.ts'
import type { ClientAnswer } from './questions.ts'

/* Parses and encodes messages by name: see docs/protocol.md. */

/** Names of messages, events and questions match this; also in `docs/protocol.md`. */
export const namePattern = /^[\w.:/-]{1,64}$/
/** How the names of the protocol's own messages begin. */
export const reservedPrefix = 'wsg.'
/** Types of answers, of clients and of the server: no message or event may have one of these names. */
export const answerNames = ['reply', 'error'] as const

const maxIdLength = 64
const maxKeyLength = 64
/** How many characters are kept of the error that a client answers with. */
const maxErrorText = 200
/** The line of JSON in front of bytes: enough for a name, an id and a key. */
const maxHeaderBytes = 512
const lineFeed = 0x0a

/** A message by name as a client sent it. */
export interface NamedMessage {
  /** `undefined` when the message has no name. */
  readonly name: string | undefined
  readonly id: number | string | undefined
  /** Messages of one client with the same key are handled once. */
  readonly key?: string | undefined
  readonly data: unknown
  readonly binary: boolean
  readonly bytes: number
  /** Set when the client answers a question of the server. */
  readonly answer?: ClientAnswer | undefined
  /** Why this is not a message by name. */
  readonly problem?: string | undefined
}

/** Never throws: a message of a wrong form gets a `problem`. */
export function parseMessage (data: string | Buffer | JsonMessage): NamedMessage {
  if (data instanceof JsonMessage) return toMessage(data.value, data.bytes)
  if (typeof data === 'string') {
    const bytes = Buffer.from(data)
    return extraMessages(bytes) === undefined ? wrong(bytes.length, tooComplex) : toMessage(parseJson(data), bytes.length)
  }
  const end = data.subarray(0, maxHeaderBytes).indexOf(lineFeed)
  if (end === -1) return wrong(data.length, 'a binary message by name begins with a line of JSON')
  return { ...toMessage(parseJson(data.toString('utf8', 0, end)), data.length), data: data.subarray(end + 1), binary: true }
}

/** Returns the `type` of a text of any kind; `undefined` for a text that is not a JSON object, or is costly to parse. */
export function typeOf (data: string): unknown {
  if (extraMessages(Buffer.from(data)) === undefined) return undefined
  const value = parseJson(data)
  return typeof value === 'object' && value !== null ? (value as { readonly type?: unknown }).type : undefined
}

function toMessage (value: unknown, bytes: number): NamedMessage {
  if (typeof value !== 'object' || value === null) return wrong(bytes, 'a message by name is a JSON object')
  const { type, data, id, key } = value as Readonly<Record<string, unknown>>
  if (id !== undefined && !isId(id)) return wrong(bytes, `id must be an integer, or a string of at most ${maxIdLength} characters`)
  if (typeof type !== 'string') return { ...wrong(bytes, 'type must be a string: the name of the message'), id }
  if (key !== undefined && !isKey(key)) return { ...wrong(bytes, `key must be a string of 1 to ${maxKeyLength} characters`), id }
  if (isPoisoned(data)) return { ...wrong(bytes, poisoned), id }
  const message = { name: type, id, key, data, binary: false, bytes }
  return type === 'reply' || type === 'error' ? { ...message, answer: type === 'reply' ? { data } : { error: errorOf(value) } } : message
}

/** Whether the message answers a question of the server. */
export function isClientAnswer (message: NamedMessage): message is NamedMessage & { readonly answer: ClientAnswer } {
  return message.answer !== undefined
}

function errorOf (value: object): NonNullable<ClientAnswer['error']> {
  const { code, message } = value as Readonly<Record<string, unknown>>
  return { code: errorText(code), message: errorText(message) }
}

/** An object that JSON made may have no text: its fields `toString` and `valueOf` may be anything. */
function errorText (value: unknown): string {
  return (typeof value === 'object' ? '' : String(value)).slice(0, maxErrorText)
}

function wrong (bytes: number, problem: string): NamedMessage {
  return { name: undefined, id: undefined, data: undefined, binary: false, bytes, problem }
}

function isKey (key: unknown): key is string {
  return typeof key === 'string' && key !== '' && key.length <= maxKeyLength
}

function isId (id: unknown): id is number | string {
  return Number.isSafeInteger(id) || (typeof id === 'string' && id.length <= maxIdLength)
}

function parseJson (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined // not JSON, so not an object either
  }
}

/** Encodes an event: the same for raw and framed clients. */
export function encodeEvent (name: string, data: NonNullable<ReplyData>): Data {
  return 'json' in data ? `{"type":"${name}","data":${data.json}}` : withHeader({ type: name }, data.bytes)
}

/** Encodes the answer for a raw client. Returns `undefined` for a reply to a message without `id`; errors are sent in any case. */
export function encodeAnswer (id: NamedMessage['id'], answer: MessageAnswer): Data | undefined {
  if (answer instanceof Refusal) return JSON.stringify({ type: 'error', id, ...describeError(answer.error) })
  const { data } = answer as Reply
  if (id === undefined) return undefined
  if (data !== undefined && 'bytes' in data) return withHeader({ type: 'reply', id }, data.bytes)
  return `{"type":"reply","id":${JSON.stringify(id)}${data === undefined ? '' : `,"data":${data.json}`}}`
}

function withHeader (header: object, bytes: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`${JSON.stringify(header)}\n`), bytes])
}
