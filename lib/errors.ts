/**
 * Every error this package throws: its code, the HTTP status of the response when a route lets the error through, and its text.
 * Codes are never renamed or reused.
 */
export const errorCodes = {
  WSG_OPTION_INVALID: { statusCode: 500, text: 'an option of fastify-websocket-groups is invalid' },
  WSG_ALREADY_REGISTERED: { statusCode: 500, text: 'fastify-websocket-groups is already registered on this server' },
  WSG_GROUP_NAME_INVALID: {
    statusCode: 400,
    text: 'a group name must be a non-empty string of well-formed UTF-8, at most 255 bytes, without control characters'
  },
  WSG_USER_ID_INVALID: {
    statusCode: 400,
    text: 'a user id must be a non-empty string of well-formed UTF-8, at most 255 bytes, without control characters'
  },
  WSG_DATA_INVALID: { statusCode: 400, text: 'data must be a string or a Uint8Array' },
  WSG_CLOSE_CODE_INVALID: {
    statusCode: 400,
    text: 'a close code must be 1000-1003, 1007-1014 or 3000-4999, and its reason a string of at most 123 bytes'
  },
  WSG_TOO_MANY_GROUPS: { statusCode: 429, text: 'the connection is in as many groups as maxGroupsPerConnection allows' },
  WSG_TOO_MANY_CONNECTIONS: { statusCode: 429, text: 'too many connections are open' },
  WSG_RATE_LIMITED: { statusCode: 429, text: 'too many requests at once: try again later' },
  WSG_BLOCKED: { statusCode: 403, text: 'this user or token is blocked for now' },
  WSG_BLOCK_INVALID: {
    statusCode: 400,
    text: 'a block must name a userId or a tokenId of 1 to 255 bytes, and forMs from 1 to 2,592,000,000 (30 days)'
  },
  WSG_BLOCKLIST_FULL: { statusCode: 503, text: 'the blocklist is full; nothing was blocked' },
  WSG_MEMBER_INFO_TOO_LARGE: { statusCode: 500, text: 'memberInfo must return at most 1,024 bytes of JSON' },
  WSG_CONNECTION_GONE: { statusCode: 410, text: 'the connection does not exist or is closed' },
  WSG_UNAUTHORIZED: { statusCode: 401, text: 'a valid token is required' },
  WSG_IDENTITY_INVALID: { statusCode: 500, text: 'the identity cannot be used' },
  WSG_AUTH_TIMEOUT: { statusCode: 503, text: 'the token could not be checked in time' },
  WSG_FORBIDDEN: { statusCode: 403, text: 'not allowed' },
  WSG_BACKPLANE_UNAVAILABLE: { statusCode: 503, text: 'the backplane cannot be reached; nothing was sent' },
  WSG_TIMEOUT: { statusCode: 504, text: 'there was no answer in time; the operation may or may not have taken effect' },
  WSG_QUEUE_FULL: { statusCode: 503, text: 'too many messages are waiting for the backplane; nothing was sent' },
  WSG_MESSAGE_TOO_LARGE: { statusCode: 413, text: 'the message is larger than Redis accepts; nothing was sent' },
  WSG_MESSAGE_INVALID: { statusCode: 400, text: 'not a message that this route accepts' },
  WSG_MESSAGE_UNKNOWN: { statusCode: 404, text: 'this route accepts no message with this name' },
  WSG_MESSAGE_LIMIT: { statusCode: 413, text: 'the message has more bytes than allowed' },
  WSG_EVENT_INVALID: { statusCode: 500, text: 'an event does not fit its schema, or has none; nothing was sent' },
  WSG_STREAM_LIMIT: { statusCode: 429, text: 'a stream is too long, or there are too many of them' },
  WSG_STREAM_TAKEN: { statusCode: 409, text: 'a stream with this id is open in the group' },
  WSG_STREAM_STOPPED: { statusCode: 410, text: 'somebody stopped the stream' },
  WSG_STREAM_LOST: { statusCode: 410, text: 'nothing came from the producer of the stream any more' },
  WSG_STREAM_UNKNOWN: { statusCode: 404, text: 'the group has no stream with this id, or no longer has it' },
  WSG_IDEMPOTENCY_INVALID: { statusCode: 400, text: 'the idempotency key cannot be used' },
  WSG_CONFLATION_KEY_INVALID: { statusCode: 400, text: 'a conflation key must be a non-empty string of at most 255 bytes' },
  WSG_POSITION_INVALID: { statusCode: 400, text: 'not a position: pass one that came with a message, a join or a broadcast' },
  WSG_HANDLER_FAILED: { statusCode: 500, text: 'the server could not handle the request' },
  WSG_NO_WEBSOCKET_ROUTE: { statusCode: 404, text: 'this route does not accept WebSocket upgrades' },
  WSG_REFUSED: { statusCode: 503, text: 'this instance does not accept new connections now: try again later' },
  WSG_REDIS_UNSUPPORTED: { statusCode: 500, text: 'this Redis server is not supported' },
  WSG_REDIS_REFUSED: { statusCode: 500, text: 'Redis refuses this client' },
  WSG_INSTANCE_ID_TAKEN: { statusCode: 500, text: 'another instance already uses this id' },
  WSG_CLOSED: { statusCode: 503, text: 'the plugin is closed' }
} as const

/** Any client can cause these at will, and Fastify logs them: a stack would only fill the log. */
const withoutStack: readonly string[] = [
  'WSG_UNAUTHORIZED', 'WSG_FORBIDDEN', 'WSG_NO_WEBSOCKET_ROUTE', 'WSG_REFUSED', 'WSG_TOO_MANY_CONNECTIONS', 'WSG_RATE_LIMITED',
  'WSG_BLOCKED', 'WSG_MESSAGE_INVALID', 'WSG_MESSAGE_UNKNOWN', 'WSG_MESSAGE_LIMIT'
]

export type ErrorCode = keyof typeof errorCodes

interface ErrorInit {
  readonly cause?: unknown
  /** Replaces the status of the code. */
  readonly statusCode?: number | undefined
  readonly done?: number | undefined
  readonly missing?: readonly string[] | undefined
  readonly sentTo?: readonly string[] | undefined
  readonly details?: unknown
}

/** Test `error.code`, not `instanceof`: an ESM and a CommonJS copy of this class may live in one process. */
export class WebsocketGroupsError extends Error {
  override readonly name = 'WebsocketGroupsError'
  readonly code: ErrorCode
  readonly statusCode: number
  /** What was wrong this time, without the text that all errors with this code share. */
  readonly detail: string | undefined
  /** Set by calls that many instances carry out: for how many connections the work was done before the call failed. */
  declare readonly done?: number | undefined
  /** Set by the same calls: the ids of the live instances that did not answer. */
  declare readonly missing?: readonly string[] | undefined
  /** Set by a broadcast that reached only some of its groups: the groups that certainly got the message. */
  declare readonly sentTo?: readonly string[] | undefined
  /** What is wrong with the data of a message, as the validator lists it. */
  declare readonly details?: unknown

  constructor (
    code: ErrorCode,
    detail?: string,
    { statusCode = errorCodes[code].statusCode, done, missing, sentTo, details, ...options }: ErrorInit = {}
  ) {
    super(detail === undefined ? errorCodes[code].text : `${errorCodes[code].text}: ${detail}`, options)
    this.code = code
    this.detail = detail
    this.statusCode = statusCode
    if (done !== undefined) this.done = done
    if (missing !== undefined) this.missing = missing
    if (sentTo !== undefined) this.sentTo = sentTo
    if (details !== undefined) this.details = details
    if (withoutStack.includes(code)) this.stack = `${this.name}: ${this.message}`
  }
}

/** For deadlines. */
export function timedOut (): never {
  throw new WebsocketGroupsError('WSG_TIMEOUT')
}

export function hasCode (error: unknown, ...codes: ErrorCode[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(error.code as ErrorCode)
}

/** Whether the backplane is out, or did not answer in time: a later try may succeed. */
export function isOutage (error: unknown): boolean {
  return hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT')
}

/** As `isOutage`; also true when this process has closed meanwhile. */
export function isOutageOrClosed (error: unknown): boolean {
  return isOutage(error) || hasCode(error, 'WSG_CLOSED')
}
