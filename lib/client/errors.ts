/** The codes of this client. Those of the server (`WSG_…`), and of the application, come through as they are. */
export type ClientErrorCode =
  /** The connection broke after the message was sent and before it was acknowledged: it may or may not have been handled. */
  | 'UNKNOWN_OUTCOME'
  /** Too much waits already; the message was not taken. */
  | 'QUEUE_FULL'
  /** The client is closed; the message was not sent. */
  | 'CLOSED'
  /** An attempt to connect failed; there will be another one. */
  | 'CONNECT_FAILED'
  /** The server does not speak the framed protocol. */
  | 'PROTOCOL_UNSUPPORTED'
  /** The token callback failed. */
  | 'TOKEN_FAILED'
  /** The group was left before it was joined. */
  | 'LEFT'
  /** The server refuses this client for good. */
  | 'REFUSED'
  /** A frame made no sense, and was dropped. */
  | 'BAD_FRAME'
  /** A handler of this client's events threw. */
  | 'HANDLER_FAILED'

export interface ErrorDetails {
  readonly cause?: unknown
  readonly closeCode?: number
  readonly status?: number | undefined
  readonly group?: string
}

/** Test `error.code`; the text is for people. */
export class ClientError extends Error {
  override readonly name = 'ClientError'
  declare readonly code: ClientErrorCode | (string & {})
  /** The code that the connection was closed with. */
  declare readonly closeCode: number | undefined
  /** The HTTP status of a refused upgrade, where it can be seen: not in browsers. */
  declare readonly status: number | undefined
  declare readonly group: string | undefined

  constructor (code: ClientErrorCode | (string & {}), text: string, details: ErrorDetails = {}) {
    super(text, { cause: details.cause })
    this.code = code
    this.closeCode = details.closeCode
    this.status = details.status
    this.group = details.group
  }
}
