import type { FastifyRequest } from 'fastify'
import { invalid, show } from '../options/rules.ts'
import type { WsAuthOptions } from '../route-types.ts'

type AllowedOrigins = WsAuthOptions['allowedOrigins']
export type OriginCheck = (request: FastifyRequest) => boolean

/**
 * Browsers let any page open a WebSocket to any host, and send the cookies of that host along (cross-site WebSocket hijacking); there is
 * no CORS for it. They also always say which page it was, so that a request without an origin comes from no browser.
 */
export function originCheck (allowed: AllowedOrigins, withCookie: boolean): OriginCheck {
  if (typeof allowed === 'function') return request => originOf(request) === undefined || allowed(originOf(request) ?? '', request)
  if (allowed !== undefined) {
    for (const origin of allowed) assertOrigin(origin)
    const origins = new Set(allowed.map(origin => origin.toLowerCase()))
    return request => origins.has(originOf(request)?.toLowerCase() ?? '') || originOf(request) === undefined
  }
  return withCookie ? request => originOf(request) === undefined || isOwnHost(request) : () => true
}

function originOf (request: FastifyRequest): string | undefined {
  return request.headers.origin
}

/** `request.host` is what the browser asked for, also behind a proxy when `trustProxy` is set. */
function isOwnHost (request: FastifyRequest): boolean {
  try {
    return new URL(originOf(request) ?? '').host === request.host.toLowerCase()
  } catch {
    return false                                 // 'null', the origin of sandboxed frames and local files
  }
}

/** Schemes of apps (`capacitor://localhost`) are origins too, so this is no job for URL. */
function assertOrigin (origin: unknown): void {
  if (typeof origin !== 'string' || !/^[a-z][a-z0-9+.-]*:\/\/[^/?#\s]+$/i.test(origin)) {
    throw invalid(`wsAuth.allowedOrigins must hold origins such as 'https://example.com' (no path, no slash at the end), got ${show(origin)}`)
  }
}
