/** Every error this package throws: its code, the HTTP status it has when a route lets it through, and its text. Codes are never renamed or reused. */
export const errorCodes = {
  WSG_OPTION_INVALID: { statusCode: 500, text: 'an option of fastify-websocket-groups is wrong' },
  WSG_ALREADY_REGISTERED: { statusCode: 500, text: 'fastify-websocket-groups is already registered on this server' },
  WSG_GROUP_NAME_INVALID: { statusCode: 400, text: 'a group name is a non-empty string of at most 255 bytes of well-formed UTF-8 without control characters' },
  WSG_USER_ID_INVALID: { statusCode: 400, text: 'a user id is a non-empty string of at most 255 bytes of well-formed UTF-8 without control characters' },
  WSG_DATA_INVALID: { statusCode: 400, text: 'data must be a string or a Uint8Array' },
  WSG_CLOSE_CODE_INVALID: { statusCode: 400, text: 'a close code is 1000-1003, 1007-1014 or 3000-4999, its reason at most 123 bytes' },
  WSG_TOO_MANY_GROUPS: { statusCode: 429, text: 'the connection is in as many groups as maxGroupsPerConnection allows' },
  WSG_TOO_MANY_CONNECTIONS: { statusCode: 429, text: 'too many connections are open' },
  WSG_RATE_LIMITED: { statusCode: 429, text: 'too much at once' },
  WSG_BLOCKED: { statusCode: 403, text: 'this user or token is blocked for now' },
  WSG_BLOCK_INVALID: { statusCode: 400, text: 'a block names a userId or a tokenId of 1 to 255 bytes, and forMs from 1 to 2,592,000,000 (30 days)' },
  WSG_BLOCKLIST_FULL: { statusCode: 503, text: 'as many users and tokens are blocked as can be; nothing was blocked' },
  WSG_MEMBER_INFO_TOO_LARGE: { statusCode: 500, text: 'memberInfo returned more than 1,024 bytes of JSON' },
  WSG_CONNECTION_GONE: { statusCode: 410, text: 'the connection is closed or was never here' },
  WSG_UNAUTHORIZED: { statusCode: 401, text: 'a valid token is required' },
  WSG_FORBIDDEN: { statusCode: 403, text: 'not allowed' },
  WSG_BACKPLANE_UNAVAILABLE: { statusCode: 503, text: 'the backplane cannot be reached; nothing was sent' },
  WSG_TIMEOUT: { statusCode: 504, text: 'no answer in time; it may or may not have happened' },
  WSG_QUEUE_FULL: { statusCode: 503, text: 'too much waits for the backplane; nothing was sent' },
  WSG_IDEMPOTENCY_INVALID: { statusCode: 400, text: 'the idempotency key cannot be used' },
  WSG_CONFLATION_KEY_INVALID: { statusCode: 400, text: 'a conflation key is a non-empty string of at most 255 bytes' },
  WSG_POSITION_INVALID: { statusCode: 400, text: 'a position is what a message, a join or a broadcast came with' },
  WSG_HANDLER_FAILED: { statusCode: 500, text: 'the server could not handle it' },
  WSG_REFUSED: { statusCode: 503, text: 'this instance takes no new connections now' },
  WSG_REDIS_UNSUPPORTED: { statusCode: 500, text: 'this Redis server cannot be used' },
  WSG_REDIS_REFUSED: { statusCode: 500, text: 'Redis refuses this client' },
  WSG_INSTANCE_ID_TAKEN: { statusCode: 500, text: 'another instance uses this id' },
  WSG_CLOSED: { statusCode: 503, text: 'the plugin is closed' }
} as const
/** Anyone can cause these at will: Fastify logs them, and a stack would only fill the log. */
const withoutStack: readonly string[] = ['WSG_UNAUTHORIZED', 'WSG_FORBIDDEN', 'WSG_REFUSED', 'WSG_TOO_MANY_CONNECTIONS', 'WSG_RATE_LIMITED', 'WSG_BLOCKED']

export type ErrorCode = keyof typeof errorCodes

/** Test `error.code`, not `instanceof`: an ESM and a CommonJS copy of this class may live in one process. */
export class WebsocketGroupsError extends Error {
  override readonly name = 'WebsocketGroupsError'
  readonly code: ErrorCode
  readonly statusCode: number
  /** What was wrong in this case. */
  readonly detail: string | undefined

  constructor (code: ErrorCode, detail?: string, options?: { cause?: unknown }) {
    super(detail === undefined ? errorCodes[code].text : `${errorCodes[code].text}: ${detail}`, options)
    this.code = code
    this.detail = detail
    this.statusCode = errorCodes[code].statusCode
    if (withoutStack.includes(code)) this.stack = `${this.name}: ${this.message}`
  }
}

export function hasCode (error: unknown, ...codes: ErrorCode[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(error.code as ErrorCode)
}
