import { isGroupName } from '../../group-name.ts'
import { isJsonEvent, JsonMessage } from '../inbound/json-message.ts'
import {
  maxResume, positionPattern, type HistoryQuery, type JsonPayload, type MessagePlace, type Payload, type ServerFrame
} from '../../protocol/frames.ts'

/** The position from which a client wants to resume in a group, and its proof that it was in the group. */
export interface ResumePoint {
  readonly since: string
  readonly grant: string | undefined
}

/** A frame of a client, checked and decoded: docs/protocol.md says what each means. */
export type ParsedFrame =
  | {
    readonly type: 'hello'
    readonly session: string | undefined
    readonly resume: ReadonlyMap<string, ResumePoint>
    readonly json: boolean
  }
  | { readonly type: 'ping' }
  | ClientRequest

/** A request that is handled in turn with the messages of its connection. */
export type ClientRequest = { readonly id: number | undefined } & (
  | { readonly type: 'message', readonly data: string | Buffer | JsonMessage }
  | {
    readonly type: 'join'
    readonly group: string
    readonly since: string | undefined
    readonly grant: string | undefined
    readonly history: number | undefined
  }
  | { readonly type: 'history', readonly group: string, readonly query: HistoryQuery }
  | { readonly type: 'leave', readonly group: string }
  | { readonly type: 'token', readonly token: string }
)

/** `frame` is `undefined` for a type that this version does not know. */
type Parsed =
  | { readonly ok: true, readonly frame: ParsedFrame | undefined }
  | { readonly ok: false, readonly why: string }

type Fields = Readonly<Record<string, unknown>>

/** Never throws. `bytes` is how long the text was on the wire. `why` fits into the reason of a close frame. */
export function parseFrame (text: string, bytes = text.length): Parsed {
  let fields: unknown
  try {
    fields = JSON.parse(text)
  } catch {
    return wrong('a frame must be JSON')
  }
  if (!isObject(fields)) return wrong('a frame must be a JSON object')
  if (typeof fields.type !== 'string') return wrong('type must be a string')
  if (fields.type === 'hello') return parseHello(fields)
  if (fields.type === 'ping') return { ok: true, frame: { type: 'ping' } }
  return parseRequest(fields.type, fields, bytes)
}

function parseHello ({ session, resume = {}, grants = {}, json }: Fields): Parsed {
  if (!isTextOrAbsent(session)) return wrong('hello: session must be a string')
  if (!isObject(resume)) return wrong('hello: resume must be an object')
  if (!isObject(grants)) return wrong('hello: grants must be an object')
  const entries = Object.entries(resume)
  if (entries.length > maxResume) return wrong(`hello: resume holds more than ${maxResume} groups`)
  const points = new Map<string, ResumePoint>()
  for (const [group, since] of entries) {
    if (!isGroupName(group)) return wrong('hello: resume contains an invalid group name')
    if (!isPosition(since)) return wrong('hello: resume contains a value that is not a position')
    const grant = Object.hasOwn(grants, group) ? grants[group] : undefined
    if (!isTextOrAbsent(grant)) return wrong('hello: grants contains a value that is not a string')
    points.set(group, { since, grant })
  }
  return { ok: true, frame: { type: 'hello', session, resume: points, json: json === true } }
}

function parseRequest (type: string, fields: Fields, bytes: number): Parsed {
  const { id } = fields
  switch (type) {
    case 'message':
    case 'join':
    case 'leave':
    case 'history':
    case 'token':
      if (id !== undefined && !Number.isSafeInteger(id)) return wrong(`${type}: id must be an integer`)
      return parseFields(type, id as number | undefined, fields, bytes)
    default:
      return { ok: true, frame: undefined }
  }
}

function parseFields (type: ClientRequest['type'], id: number | undefined, fields: Fields, bytes: number): Parsed {
  const { group, since, grant, token, history } = fields
  if (type === 'message') return parseMessage(id, fields, bytes)
  if (type === 'token') return typeof token === 'string' ? { ok: true, frame: { type, id, token } } : wrong('token: token must be a string')
  if (typeof group !== 'string') return wrong(`${type}: group must be a string`)
  if (type === 'leave') return { ok: true, frame: { type, id, group } }
  if (!isTextOrAbsent(since)) return wrong(`${type}: since must be a string`)
  if (type === 'history') return parseHistory(id, group, fields)
  if (!isCountOrAbsent(history)) return wrong('join: history must be a positive integer')
  return isTextOrAbsent(grant) ? { ok: true, frame: { type, id, group, since, grant, history } } : wrong('join: grant must be a string')
}

function parseHistory (id: number | undefined, group: string, { since, before, limit, reverse }: Fields): Parsed {
  if (!isTextOrAbsent(before)) return wrong('history: before must be a string')
  if (!isCountOrAbsent(limit)) return wrong('history: limit must be a positive integer')
  if (reverse !== undefined && typeof reverse !== 'boolean') return wrong('history: reverse must be a boolean')
  return { ok: true, frame: { type: 'history', id, group, query: { since: since as string | undefined, before, limit, reverse } } }
}

function parseMessage (id: number | undefined, { data: sent, binary, json }: Fields, bytes: number): Parsed {
  if (json === true && sent !== undefined) return { ok: true, frame: { type: 'message', id, data: new JsonMessage(sent, bytes) } }
  if (typeof sent !== 'string') return wrong('message: data must be a string')
  if (binary !== undefined && typeof binary !== 'boolean') return wrong('message: binary must be a boolean')
  const data = binary === true ? fromBase64(sent) : sent
  return data === undefined ? wrong('message: data is not base64') : { ok: true, frame: { type: 'message', id, data } }
}

/**
 * Returns `undefined` for invalid base64: Buffer.from skips invalid characters, so fewer bytes come out than the length of the text
 * promises.
 */
function fromBase64 (text: string): Buffer | undefined {
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0
  const bytes = Buffer.from(text, 'base64')
  return text.length % 4 === 0 && bytes.length === text.length / 4 * 3 - padding ? bytes : undefined
}

/** Whether the text has the form of a position. Only the log knows whether the position exists. */
function isPosition (value: unknown): value is string {
  return typeof value === 'string' && positionPattern.test(value)
}

function isTextOrAbsent (value: unknown): value is string | undefined {
  return value === undefined || typeof value === 'string'
}

function isCountOrAbsent (value: unknown): value is number | undefined {
  return value === undefined || (Number.isSafeInteger(value) && Number(value) > 0)
}

function isObject (value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function wrong (why: string): Parsed {
  return { ok: false, why }
}

/** Encodes any frame but `message`, which has `encodeMessage`. */
export function encodeFrame (frame: ServerFrame<unknown, Payload | JsonPayload>): string {
  return JSON.stringify(frame)
}

/**
 * Encodes a `message` frame. Returns bytes: thousands of sockets may write them, and each would encode a string again. `json`: the client
 * takes events as values.
 */
export function encodeMessage (
  data: string | Uint8Array, binary: boolean, { group, position, at, copy }: MessagePlace = {}, json = false
): Buffer {
  const frame = { type: 'message', group, position, at, copy }
  if (json && !binary && isJsonEvent(data)) {
    return Buffer.concat([Buffer.from(`${JSON.stringify(frame).slice(0, -1)},"json":true,"data":`), Buffer.from(data), closingBrace])
  }
  return Buffer.from(JSON.stringify({
    ...frame,
    data: typeof data === 'string' ? data : asBuffer(data).toString(binary ? 'base64' : 'utf8'),
    ...(binary ? { binary } : {})
  }))
}

const closingBrace = Buffer.from('}')

/** A message of a history, as clients get it. */
export function encodePast (data: string | Uint8Array, json: boolean): Payload | JsonPayload {
  if (json && typeof data === 'string' && isJsonEvent(data)) return { data: JSON.parse(data), json }
  return typeof data === 'string' ? { data } : { data: asBuffer(data).toString('base64'), binary: true }
}

function asBuffer (bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
