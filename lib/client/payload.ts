import type { JsonPayload, Payload, ServerFrame } from '../protocol/frames.ts'
import type { Data, JsonData, MemberInfo } from './types.ts'

/** A frame as this client receives it. */
export type Frame = ServerFrame<MemberInfo>

/** The caller ignores a frame of an unknown type. @throws {Error} for anything but a frame */
export function parseFrame (data: unknown): Frame {
  const frame = JSON.parse(data as string) as Frame
  if (typeof frame.type !== 'string') throw new TypeError('no type')
  return frame
}

/** @throws {TypeError} for anything but a string, bytes or `{ json }` */
export function toPayload (data: unknown): Payload | JsonPayload {
  if (typeof data === 'string') return { data }
  const { json } = data as Partial<JsonData>
  if (json !== undefined) return { data: json, json: true }
  const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : data
  if (!(bytes instanceof Uint8Array)) throw new TypeError('data must be a string or bytes')
  let text = ''
  // In pieces: a call takes some ten thousand arguments at most.
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192))
  return { data: btoa(text), binary: true }
}

/** Text as it came, or what it is the JSON of where the client asked for that. */
export function fromPayload ({ data, binary }: Payload): Data {
  return binary ? Uint8Array.from(atob(data), character => character.charCodeAt(0)) : data
}
