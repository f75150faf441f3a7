import type { ClientRequest } from '../framed/frame-codec.ts'
import type { LossReason } from '../../types.ts'

/** Handles the requests of a client of the framed protocol, each in its turn. */
export interface RequestHandler {
  handle (request: ClientRequest): unknown
  /** A callback failed for the request. */
  failed (request: ClientRequest, error: Error): void
}

interface FramedRequest { readonly handler: RequestHandler, readonly request: ClientRequest }

/** Messages of a group that are lost to the connection. */
interface Loss { readonly group: string, readonly reason: LossReason }

/** What waits in the queue of a connection for its callbacks. */
export type Message = string | Buffer | FramedRequest | Loss

export function isLoss (message: Message | undefined): message is Loss {
  return typeof message === 'object' && 'reason' in message
}

export function isFramed (message: Message | undefined): message is FramedRequest {
  return typeof message === 'object' && 'handler' in message
}
