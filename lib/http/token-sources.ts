import type { FastifyRequest } from 'fastify'
import type { IncomingMessage } from 'node:http'
import { framedProtocol } from '../protocol/frames.ts'

/** `new WebSocket(url, ['bearer', token])`: the one header that a browser lets a page set. */
const bearer = 'bearer'

export interface TokenSources {
  readonly cookie?: string | false
  readonly query?: string | false
}

/** The token of a request, from the first place that has one. `null`: that place holds something other than a token. */
export function findToken (request: FastifyRequest, { cookie = false, query = false }: TokenSources): string | null | undefined {
  const { authorization, 'sec-websocket-protocol': protocols } = request.headers
  const inHeaders = firstOf(fromAuthorization(authorization), fromProtocols(protocols))
  const inCookie = cookie === false ? undefined : fromCookie(request, cookie)
  return firstOf(inHeaders, inCookie, query === false ? undefined : fromField(request.query, query))
}

function firstOf (...tokens: ReadonlyArray<string | null | undefined>): string | null | undefined {
  return tokens.find(token => token !== undefined)
}

/**
 * Which of the offered subprotocols the server answers with, for the `handleProtocols` of ws. Never the token: it would come back in a
 * header that proxies log. A browser drops the connection when it offered some and gets none, so something is chosen where there is a
 * choice: the framed protocol of this package if it is there, else what the client likes best.
 */
export function selectProtocol (offered: ReadonlySet<string>, _request?: IncomingMessage): string | false {
  const protocols = [...offered]
  const at = protocols.indexOf(bearer)
  const choices = at === -1 ? protocols : protocols.toSpliced(at, 2)
  if (choices.includes(framedProtocol)) return framedProtocol
  return choices[0] ?? (at === -1 ? false : bearer)
}

function fromAuthorization (header: string | undefined): string | null | undefined {
  // RFC 9110 11.1: the scheme is case-insensitive.
  const [scheme] = /^bearer +/i.exec(header ?? '') ?? []
  if (scheme === undefined) return undefined
  const token = nonEmpty(header?.slice(scheme.length).trim())
  return token !== undefined && /\s/.test(token) ? null : token
}

function fromProtocols (header: string | undefined): string | undefined {
  const protocols = (header ?? '').split(',').map(protocol => protocol.trim())
  const at = protocols.indexOf(bearer)
  return at === -1 ? undefined : nonEmpty(protocols[at + 1])
}

function fromCookie (request: FastifyRequest & { cookies?: unknown }, name: string): string | null | undefined {
  // Where the service has @fastify/cookie, that plugin knows more about cookies than this file.
  if (typeof request.cookies === 'object' && request.cookies !== null) return fromField(request.cookies, name)
  for (const pair of (request.headers.cookie ?? '').split(';')) {
    const equals = pair.indexOf('=')
    if (equals !== -1 && pair.slice(0, equals).trim() === name) return nonEmpty(decoded(pair.slice(equals + 1).trim()))
  }
  return undefined
}

function fromField (fields: unknown, name: string): string | null | undefined {
  if (typeof fields !== 'object' || fields === null || !Object.hasOwn(fields, name)) return undefined
  const value = (fields as Record<string, unknown>)[name]
  // A parameter that is given twice is an array.
  return typeof value === 'string' ? nonEmpty(value) : null
}

/** RFC 6265 4.1.1 allows quotes; browsers and @fastify/cookie write escapes. */
function decoded (value: string): string {
  const bare = value.length > 1 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value
  try {
    return decodeURIComponent(bare)
  } catch {
    return bare // A lone % is valid in a cookie that is not escaped.
  }
}

function nonEmpty (value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}
