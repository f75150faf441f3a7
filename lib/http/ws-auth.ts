import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { WebsocketGroupsError } from '../errors.ts'
import type { ResolvedOptions } from '../options/resolve.ts'
import { aBoolean, aFunction, checkOptions, invalid, type Rule } from '../options/rules.ts'
import type { Authenticate, WsAuthOptions } from '../route-types.ts'
import type { Identity } from '../types.ts'
import { originCheck } from './origin.ts'
import { findToken } from './token-sources.ts'

export { selectProtocol } from './token-sources.ts'

const aNameOrFalse: Rule = { allowed: 'a name or false', accepts: value => value === false || (typeof value === 'string' && value !== '') }

export const authRules = {
  authenticate: aFunction,
  authorize: aFunction,
  required: aBoolean,
  cookie: aNameOrFalse,
  query: aNameOrFalse,
  allowedOrigins: { allowed: 'an array of origins or a function', accepts: value => Array.isArray(value) || typeof value === 'function' }
} as const satisfies Record<keyof WsAuthOptions, Rule>

/** Looks at a fresh token as the route looked at the first one; resolves with nothing when it is no good. */
export type Reauthenticate = (token: string) => Promise<Identity | undefined>

/** For the handler that comes after the preHandler. By request, so that nothing outlives it unless the connection has use for it. */
const reauthenticators = new WeakMap<FastifyRequest, Reauthenticate>()

export function reauthenticatorOf (request: FastifyRequest): Reauthenticate | undefined {
  return reauthenticators.get(request)
}

/** Makes `app.wsAuth`: authentication in a preHandler, so that a refusal is a plain HTTP answer and nothing is upgraded. */
export function makeWsAuth (plugin: Pick<ResolvedOptions, 'authenticate' | 'expiresAt'>): FastifyInstance['wsAuth'] {
  return function wsAuth<Who> (options: WsAuthOptions<Who> = {}) {
    checkOptions(options, authRules, 'wsAuth.')
    const { required = true, authorize } = options
    const authenticate = options.authenticate ?? plugin.authenticate as Authenticate<Who> | undefined
    if (authenticate === undefined) throw invalid('wsAuth() needs `authenticate`: give it to the plugin, or to wsAuth({ authenticate })')
    const allowsOrigin = originCheck(options.allowedOrigins, typeof options.cookie === 'string')

    const admit = async (token: string, request: FastifyRequest): Promise<Identity | undefined> => {
      const identity = await identify(authenticate, token, request)
      const expiresAt = identity === undefined ? undefined : plugin.expiresAt(identity as Identity)
      if (identity === undefined || (expiresAt !== undefined && expiresAt <= Date.now())) return undefined
      if (authorize !== undefined && await authorize(identity, request) !== true) throw new WebsocketGroupsError('WSG_FORBIDDEN')
      return identity as Identity
    }

    return async function authenticateRequest (request: FastifyRequest, reply: FastifyReply): Promise<void> {
      if (!allowsOrigin(request)) throw new WebsocketGroupsError('WSG_FORBIDDEN', 'the origin is not allowed')
      reauthenticators.set(request, async token => await admit(token, request))
      const token = findToken(request, options)
      if (token === undefined) {
        if (!required) return
        throw unauthorized(reply, 'Bearer')
      }
      const identity = await admit(token, request)
      if (identity === undefined) throw unauthorized(reply, 'Bearer error="invalid_token"')
      request.identity = identity
    }
  }
}

/** Resolves with nothing when the token is no good. */
async function identify<Who> (authenticate: Authenticate<Who>, token: string, request: FastifyRequest): Promise<Who | undefined> {
  try {
    return await authenticate(token, request) ?? undefined
  } catch (error) {
    const status = statusOf(error)
    // The outage of a service behind `authenticate` is not the client's fault, and must not make clients drop good tokens.
    if (status >= 500) throw error
    if (status === 403) throw new WebsocketGroupsError('WSG_FORBIDDEN', undefined, { cause: error })
    request.log.info({ reason: String(error).replaceAll(token, '***') }, 'token refused')
    return undefined
  }
}

/** RFC 6750 3: the challenge says whether a token was missing or bad. */
function unauthorized (reply: FastifyReply, challenge: string): WebsocketGroupsError {
  reply.header('www-authenticate', challenge)
  return new WebsocketGroupsError('WSG_UNAUTHORIZED')
}

function statusOf (error: unknown): number {
  if (typeof error !== 'object' || error === null) return 0
  const { statusCode, status } = error as { statusCode?: unknown, status?: unknown }
  return Number(statusCode ?? status ?? 0)
}
