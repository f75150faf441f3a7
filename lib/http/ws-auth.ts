import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Reauthentication } from '../connection/framed/token-refresh.ts'
import type { CheckDeadlines } from '../deadline.ts'
import { hasCode, WebsocketGroupsError } from '../errors.ts'
import type { Metrics } from '../metrics.ts'
import { readIdentity } from '../options/identity.ts'
import type { ResolvedOptions } from '../options/resolve.ts'
import { aBoolean, aFunction, checkOptions, invalid, show, type Rule } from '../options/rules.ts'
import type { Authenticate, WsAuthOptions } from '../route-types.ts'
import { toError } from '../thrown.ts'
import type { Identity } from '../types.ts'
import { statusOf, toAnswer } from './option-errors.ts'
import { originCheck } from './origin.ts'
import { findToken } from './token-sources.ts'

const aNameOrFalse: Rule = { allowed: 'a name or false', accepts: value => value === false || (typeof value === 'string' && value !== '') }

const authRules = {
  authenticate: aFunction,
  authorize: aFunction,
  required: aBoolean,
  cookie: aNameOrFalse,
  query: aNameOrFalse,
  allowedOrigins: { allowed: 'an array of origins or a function', accepts: value => Array.isArray(value) || typeof value === 'function' }
} as const satisfies Record<keyof WsAuthOptions, Rule>

type AuthOptions = Pick<ResolvedOptions, 'authenticate' | 'userId' | 'expiresAt'> & {
  readonly metrics: Metrics
  readonly checks: CheckDeadlines
}

/** How a connection checks later tokens, for the handler that follows. Keyed by request, so that nothing outlives it without need. */
const reauthentications = new WeakMap<FastifyRequest, Reauthentication>()

export function reauthenticationOf (request: FastifyRequest): Reauthentication | undefined {
  return reauthentications.get(request)
}

/** Makes `app.wsAuth`: authentication in a preHandler, so that a refusal is a plain HTTP answer and no socket is opened. */
export function makeWsAuth (plugin: AuthOptions): FastifyInstance['wsAuth'] {
  return function wsAuth<Who, Params> (options: WsAuthOptions<Who, Params> = {}) {
    checkOptions(options, authRules, 'wsAuth.')
    const { required = true } = options
    // The schema of the route guarantees the types of its params.
    const authorize = options.authorize as WsAuthOptions<Who>['authorize']
    const authenticate = options.authenticate ?? plugin.authenticate as Authenticate<Who> | undefined
    if (authenticate === undefined) throw invalid('wsAuth() needs `authenticate`: give it to the plugin, or to wsAuth({ authenticate })')
    const allowsOrigin = originCheck(options.allowedOrigins, typeof options.cookie === 'string')

    const reauthenticationFor = (request: FastifyRequest): Reauthentication => {
      const inTime = async <Value> (check: () => Promise<Value>): Promise<Value> => await settle(check, plugin, request)
      return {
        identify: async token => await inTime(async () => await identify(authenticate as Authenticate<unknown>, token, request, plugin)),
        authorize: async identity => await inTime(async () => authorize === undefined || await authorize(identity as Who, request) === true)
      }
    }

    /** Resolves with `undefined` where no token is given or required. @throws {WebsocketGroupsError} WSG_UNAUTHORIZED, WSG_FORBIDDEN */
    const admit = async (request: FastifyRequest, reply: FastifyReply, inTime: () => boolean): Promise<Identity | undefined> => {
      if (!await allowsOrigin(request)) throw new WebsocketGroupsError('WSG_FORBIDDEN', 'the origin is not allowed')
      const token = findToken(request, options)
      if (token === undefined && required) throw unauthorized(reply, 'Bearer')
      if (token === undefined) return undefined
      const identity = token === null ? undefined : await identify(authenticate as Authenticate<unknown>, token, request, plugin)
      if (identity === undefined) throw unauthorized(reply, 'Bearer error="invalid_token"')
      // After the deadline nobody waits for the result.
      if (authorize === undefined || !inTime()) return identity
      if (await authorize(identity as Who, request) !== true) throw new WebsocketGroupsError('WSG_FORBIDDEN')
      return identity
    }

    return async function authenticateRequest (request: FastifyRequest, reply: FastifyReply): Promise<void> {
      const identity = await settle(async inTime => await admit(request, reply, inTime), plugin, request).catch((error: unknown) => {
        if (request.ws) plugin.metrics.upgradeRefused(request.raw, statusOf(error))
        throw error
      })
      reauthentications.set(request, reauthenticationFor(request))
      if (identity !== undefined) request.identity = identity
    }
  }
}

/**
 * Runs a check with a deadline. It calls functions of the service, which may throw anything and take forever.
 * @throws what the client may be told; the log gets the rest
 */
async function settle<Value> (
  check: (inTime: () => boolean) => Promise<Value>, { checks, metrics }: AuthOptions, request: FastifyRequest
): Promise<Value> {
  const endsAt = performance.now() + checks.ms
  try {
    return await checks.within(check(() => performance.now() < endsAt), () => {
      throw new WebsocketGroupsError('WSG_AUTH_TIMEOUT', `the check took longer than ${checks.ms} ms`)
    })
  } catch (error) {
    const err = toError(error)
    const answer = toAnswer(err)
    if (answer !== err) metrics.lines.write(request.log, 'authentication_failed', { err })
    throw answer
  }
}

/** Resolves with `undefined` when the token is invalid. */
async function identify (
  authenticate: Authenticate<unknown>, token: string, request: FastifyRequest, options: AuthOptions
): Promise<Identity | undefined> {
  const identity = await verify(authenticate, token, request, options.metrics)
  if (identity === undefined) return undefined
  const { expiresAt } = readIdentity(identity, options)
  return expiresAt !== undefined && expiresAt <= Date.now() ? undefined : identity
}

/** Statuses of an auth service that say nothing about the token: the service took too long, or was asked too often. */
const mayPass = [408, 429]

async function verify (
  authenticate: Authenticate<unknown>, token: string, request: FastifyRequest, { lines }: Metrics
): Promise<Identity | undefined> {
  let identity: unknown
  try {
    identity = await authenticate(token, request)
  } catch (thrown) {
    const error = toError(thrown)
    const status = statusOf(error)
    // An outage of a service behind `authenticate` is not the client's fault, and must not make clients drop good tokens.
    if (status >= 500 || mayPass.includes(status)) throw error
    if (status === 403 || hasCode(error, 'WSG_FORBIDDEN')) throw new WebsocketGroupsError('WSG_FORBIDDEN', undefined, { cause: error })
    lines.write(request.log, 'token_refused', { reason: String(error).replaceAll(token, '***') })
    return undefined
  }
  if (isIdentity(identity)) return identity
  // `false`, '' and the like mean no. `true`, a string or a returned error are mistakes, which must not let anybody in.
  if (identity) lines.write(request.log, 'identity_invalid', { returned: show(identity) })
  return undefined
}

/**
 * Whether the value is an object with fields, of whatever class. Errors, boxed primitives (`new Boolean(false)`), dates, buffers, maps and
 * the `Response` of fetch are not such objects: each of them has another string tag than a plain object, in every realm.
 */
function isIdentity (value: unknown): value is Identity {
  return Object.prototype.toString.call(value) === '[object Object]'
}

/** RFC 6750 3: the challenge says whether a token was missing or bad. */
function unauthorized (reply: FastifyReply, challenge: string): WebsocketGroupsError {
  reply.header('www-authenticate', challenge)
  return new WebsocketGroupsError('WSG_UNAUTHORIZED')
}
