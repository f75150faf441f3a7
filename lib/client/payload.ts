import type { Data, Gap, Joined, Member, PresenceChange } from './types.ts'

// The frames of docs/protocol.md, as this client reads and writes them.

export interface Payload { readonly data: string, readonly binary?: true }

export interface WelcomeFrame { readonly type: 'welcome', readonly connectionId: string, readonly session: string, readonly pingMs: number, readonly resumeMs: number }
export interface AnswerFrame { readonly id: number, readonly position?: string }
export interface ErrorFrame { readonly id?: number, readonly code: string, readonly message: string }

export type ServerFrame =
  | WelcomeFrame
  | { readonly type: 'joined' } & Joined
  | { readonly type: 'left', readonly group: string }
  | { readonly type: 'message', readonly group?: string, readonly position?: string } & Payload
  | { readonly type: 'position', readonly group: string, readonly position: string }
  | { readonly type: 'gap' } & Gap
  | { readonly type: 'presence' } & PresenceChange
  | { readonly type: 'members', readonly group: string, readonly members: readonly Member[] }
  | { readonly type: 'ack' } & AnswerFrame
  | { readonly type: 'error' } & ErrorFrame
  | { readonly type: 'pong' }
  | { readonly type: 'reconnect', readonly afterMs: number }

/** One of an unknown type is for the caller to ignore. @throws for what is no frame */
export function parseFrame (data: unknown): ServerFrame {
  const frame = JSON.parse(data as string) as ServerFrame
  if (typeof frame.type !== 'string') throw new TypeError('no type')
  return frame
}

/** @throws {TypeError} for what cannot be sent */
export function toPayload (data: unknown): Payload {
  if (typeof data === 'string') return { data }
  const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : data
  if (!(bytes instanceof Uint8Array)) throw new TypeError('no string or bytes')
  let text = ''
  // In pieces: a call takes some ten thousand arguments at most.
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192))
  return { data: btoa(text), binary: true }
}

export function fromPayload ({ data, binary }: Payload): Data {
  return binary ? Uint8Array.from(atob(data), character => character.charCodeAt(0)) : data
}
