/** The client's own codes. Codes of the server (`WSG_…`) and of the application come through as they are. */
export type ClientErrorCode =
  /** The connection broke after the message was sent and before it was acknowledged: the server may or may not have handled it. */
  | 'UNKNOWN_OUTCOME'
  /** No answer to a request by name came in time: the server may or may not have handled it. */
  | 'TIMEOUT'
  /** The server asked a question for which `answer` has no handler; the server is told so. */
  | 'UNANSWERED'
  /** Too many messages wait already; this one was not sent. */
  | 'QUEUE_FULL'
  /** The client is closed; the message was not sent. */
  | 'CLOSED'
  /** An attempt to connect failed. The client tries again. */
  | 'CONNECT_FAILED'
  /** The route does not speak the framed protocol: the client is closed for good. */
  | 'PROTOCOL_UNSUPPORTED'
  /** The WebSocket class takes no such address or subprotocol: the client is closed for good. */
  | 'ADDRESS_UNUSABLE'
  /** The token callback threw, or gave a token that no subprotocol can hold. The client tries again. */
  | 'TOKEN_FAILED'
  /** The group was left before it was joined. */
  | 'LEFT'
  /** The server refuses this client for good. */
  | 'REFUSED'
  /** The server sent something other than a frame; the client dropped it. */
  | 'BAD_FRAME'
  /** A handler of this client's events threw, or the option `reconnect`. */
  | 'HANDLER_FAILED'

export interface ErrorDetails {
  readonly cause?: unknown
  readonly closeCode?: number | undefined
  readonly status?: number | undefined
  readonly group?: string | undefined
  readonly details?: unknown
}

/** What this client rejects with, and emits. Programs test `code`; the text is for people. */
export class ClientError extends Error {
  override readonly name = 'ClientError'
  declare readonly code: ClientErrorCode | (string & {})
  /** The code that closed the connection. */
  declare readonly closeCode: number | undefined
  /** The HTTP status of a refused upgrade. Browsers do not tell it. */
  declare readonly status: number | undefined
  declare readonly group: string | undefined
  /** What the server's error said beside its text, such as the places where a message did not fit its schema. */
  declare readonly details: unknown

  constructor (code: ClientErrorCode | (string & {}), text: string, details?: ErrorDetails) {
    super(text, details)
    // A cause is there already, and stays what no loop over the properties sees.
    Object.assign(this, details, { code })
  }
}
