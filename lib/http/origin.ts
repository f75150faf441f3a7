import type { FastifyRequest } from 'fastify'
import { invalid, show } from '../options/rules.ts'
import type { WsAuthOptions } from '../route-types.ts'

type AllowedOrigins = WsAuthOptions['allowedOrigins']
type OriginCheck = (request: FastifyRequest) => boolean | Promise<boolean>

/** Schemes whose origins browsers write without the default port. */
const webSchemes = ['http:', 'https:']
/** Schemes of URLs that cannot be the origin of a page. */
const noPageSchemes = ['ws:', 'wss:', 'ftp:']

/**
 * Browsers let any page open a WebSocket to any host, and send that host's cookies along (cross-site WebSocket hijacking); CORS does not
 * apply. They always name the page, so a request without an origin does not come from a browser.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID for an origin that no browser sends
 */
export function originCheck (allowed: AllowedOrigins, withCookie: boolean): OriginCheck {
  if (typeof allowed === 'function') {
    return async request => request.headers.origin === undefined || await allowed(request.headers.origin, request) === true
  }
  if (allowed !== undefined) {
    const origins = new Set(allowed.map(normalizeAllowed))
    return ({ headers: { origin } }) => origin === undefined || origins.has(normalize(origin) ?? '')
  }
  return withCookie ? request => request.headers.origin === undefined || isOwnHost(request.headers.origin, request) : () => true
}

/**
 * `request.host` is what the browser asked for, behind a proxy too when `trustProxy` is set. A page that came without TLS is not from this
 * host if this request came with TLS. The other way round is allowed, as TLS may end at a proxy that this process does not know.
 */
export function isOwnHost (origin: string, request: FastifyRequest): boolean {
  const page = parse(origin)
  if (page === undefined || !webSchemes.includes(page.protocol)) return false
  if (request.protocol === 'https' && page.protocol !== 'https:') return false
  return parse(`${page.protocol}//${request.host}`)?.host === page.host
}

/**
 * Scheme, host and port, with default ports left out and hosts as browsers write them; `undefined` for what is not an origin ('null' of
 * sandboxed frames).
 */
function normalize (origin: string): string | undefined {
  const url = parse(origin)
  if (url === undefined || !isBare(origin)) return undefined
  // Addresses of apps (`capacitor://localhost`) are origins too, for which the class URL gives 'null'.
  return webSchemes.includes(url.protocol) ? url.origin : origin.toLowerCase()
}

function normalizeAllowed (origin: unknown): string {
  const normal = typeof origin === 'string' ? normalize(origin) : undefined
  if (normal === undefined || !isPossible(normal)) {
    throw invalid(
      'wsAuth.allowedOrigins must hold origins such as \'https://example.com\', as pages have them: a scheme (not ws, wss or ftp), a ' +
      'host and, if it is not the default, a port; without a path, a slash at the end, a user or a wildcard; for anything else give a ' +
      `function. Got ${show(origin)}`
    )
  }
  return normal
}

/** Whether a browser can send the origin. The class URL also accepts hosts with stars or empty labels, and the port 0. */
function isPossible (origin: string): boolean {
  const { protocol, hostname, port } = new URL(origin)
  return !noPageSchemes.includes(protocol) && port !== '0' && !/\*|^\.|\.\./.test(hostname)
}

/** Whether the URL has nothing but scheme, host and port. */
function isBare (origin: string): boolean {
  return /^[a-z][a-z0-9+.-]*:\/\/[^/?#@\\\s]+$/i.test(origin)
}

function parse (text: string): URL | undefined {
  return URL.canParse(text) ? new URL(text) : undefined
}
