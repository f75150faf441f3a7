import { encodeFrame } from './frame-codec.ts'
import { describeError } from '../error-answer.ts'

/** The outcome of a message by name: a reply, or the error. */
export interface MessageAnswer {
  /** The frame that answers the request `id`. */
  toFrame (id: number): string
}

/** `json` is text that JSON.stringify, or a serializer of a schema, made. */
export type ReplyData = { readonly json: string } | { readonly bytes: Uint8Array } | undefined

export class Reply implements MessageAnswer {
  readonly data: ReplyData

  constructor (data: ReplyData) {
    this.data = data
  }

  toFrame (id: number): string {
    const { data } = this
    if (data === undefined) return encodeFrame({ type: 'ack', id })
    if ('json' in data) return `{"type":"ack","id":${id},"data":${data.json}}`
    return encodeFrame({ type: 'ack', id, data: Buffer.from(data.bytes).toString('base64'), binary: true })
  }
}

export class Refusal implements MessageAnswer {
  readonly error: unknown

  constructor (error: unknown) {
    this.error = error
  }

  toFrame (id: number): string {
    return encodeFrame({ type: 'error', id, ...describeError(this.error) })
  }
}

export function isAnswer (result: unknown): result is MessageAnswer {
  return result instanceof Reply || result instanceof Refusal
}
