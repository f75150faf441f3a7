import type { FastifyInstance, FastifyReply, FastifyRequest, onRequestHookHandler, preHandlerHookHandler } from 'fastify'
import { hasCode, WebsocketGroupsError } from '../errors.ts'
import { textToKeep } from '../kept-bytes.ts'
import type { ClientAddress, Gate, Refusal } from '../groups/gate.ts'
import type { Metrics } from '../metrics.ts'
import type { Admission } from '../connection/admissions.ts'
import { isThenable } from '../connection/inbound/callback-results.ts'
import { toError } from '../thrown.ts'
import { isClientStatus, statusWithReply, toAnswer } from './option-errors.ts'
import { addressKey, isPrivateAddress } from './address.ts'
import { isForOperators } from './upgrade-guard.ts'

/** Admissions of upgrades that are about to become connections, until their handler takes them. */
const admitted = new WeakMap<FastifyRequest, () => Admission>()

/** The name of Fastify's own error handler, which answers unless the application sets another one. */
const fastifysHandler = 'defaultErrorHandler'

/** Params of a URL up to this length are not worth a copy (characters). */
const shortUrl = 512

/** Makes the hook that judges upgrades first: how many of them their address asks for, and whether there is room at all. */
export function precheckUpgrades (gate: Gate, metrics: Metrics): onRequestHookHandler {
  return (request, reply, done) => {
    if (!request.ws || isForOperators(request)) return done()
    copyParams(request)
    const refusal = gate.precheck(addressOf(request))
    // The application answers for paths that it has no route for.
    if (refusal === undefined && request.is404) metrics.upgradeRefused(request.raw, 'noRoute')
    done(refusal === undefined ? undefined : refused(request, reply, refusal, metrics))
  }
}

/**
 * Params are pieces of the URL, and JavaScript keeps a long string in memory as long as a piece of it is in use. The name of a group
 * outlives the connection: a name that somebody made up would keep a URL of 16 KB for as long as the group's log lasts.
 */
function copyParams ({ raw: { url = '' }, params }: FastifyRequest): void {
  if (url.length <= shortUrl || typeof params !== 'object' || params === null) return
  const own = params as Record<string, unknown>
  for (const [name, value] of Object.entries(own)) if (typeof value === 'string') own[name] = textToKeep(value)
}

/**
 * Makes `Gate.admit` the last step before an upgrade, after all preHandlers of the route: only upgrades that have a route and passed
 * authentication count for the limits of connections.
 */
export function admitUpgrades (app: FastifyInstance, gate: Gate, metrics: Metrics): void {
  /** Notes the admission for the handler. Returns the error, if there is one. */
  const enter = (request: FastifyRequest, reply: FastifyReply, admission: Admission | Refusal): Error | undefined => {
    if ('code' in admission) return refused(request, reply, admission, metrics)
    const socket = reply.raw.socket
    if (socket === null || socket.destroyed) {
      gate.leave(admission)
      return undefined
    }
    // An upgrade that fails ends its socket. The admission of one that succeeds is given back when the connection ends.
    const leave = (): void => {
      admitted.delete(request)
      gate.leave(admission)
    }
    socket.once('close', leave)
    admitted.set(request, () => {
      socket.off('close', leave)
      return admission
    })
    return undefined
  }
  /** A hook of the service threw, or set an identity that cannot be read. Returns what the client is told. */
  const failed = (request: FastifyRequest, thrown: unknown, status?: number): Error => {
    const error = toError(thrown)
    const answer = toAnswer(error, status)
    if (answer !== error) metrics.lines.write(request.log, 'admission_failed', { err: error })
    return answer
  }
  const admit: preHandlerHookHandler = (request, reply, done) => {
    if (!request.ws || isForOperators(request)) return done()
    let admission: ReturnType<Gate['admit']>
    try {
      admission = gate.admit(addressOf(request), request.identity)
    } catch (error) {
      return done(failed(request, error))
    }
    // Most upgrades wait for nothing here, and a promise for each would be a good part of their cost.
    if (!isThenable(admission)) return done(enter(request, reply, admission))
    admission.then(settled => enter(request, reply, settled), (error: unknown) => failed(request, error)).then(done, done)
  }
  app.addHook('onRoute', route => {
    const { websocket, wsHandler } = route as { websocket?: boolean, wsHandler?: unknown }
    if (websocket !== true && wsHandler === undefined) return
    route.preHandler = [...[route.preHandler ?? []].flat(), admit]
    // Fastify's own handler answers with the text of the error. An application with a handler of its own decides what clients are told.
    route.errorHandler ??= (thrown, request, reply) => {
      const { errorHandler } = request.server
      if (request.ws && errorHandler.name === fastifysHandler) {
        const status = statusWithReply(thrown, reply.statusCode)
        const error = toError(thrown)
        if (!isForClient(error, status)) throw failed(request, error, status)
        // The error as it is, or a copy that can be read: reading a broken one would throw an error with a text of its own.
        if (thrown instanceof Error) throw error
      }
      // Passes an error on to the handler that would have come first. Any other value thrown here would be sent as an answer.
      if (thrown instanceof Error) throw thrown
      return errorHandler(thrown, request, reply)
    }
  })
}

/** Whether the error that a hook threw is meant for the client: it has a status from 400 to 499, or this package refused the upgrade. */
function isForClient (error: Error, status: number): boolean {
  return isClientStatus(status) || hasCode(error, 'WSG_REFUSED')
}

/** Takes the admission of an upgrade that became a connection. The caller has to give it back. */
export function takeAdmission (request: FastifyRequest): Admission | undefined {
  const take = admitted.get(request)
  admitted.delete(request)
  return take?.()
}

function addressOf (request: FastifyRequest): ClientAddress | undefined {
  // Under injectWS of @fastify/websocket there is no network socket, and no address.
  const ip = request.ip as string | undefined
  if (ip === undefined || ip === '') return undefined
  const key = addressKey(ip)
  return { key, isPrivate: isPrivateAddress(key) }
}

function refused (
  request: FastifyRequest, reply: FastifyReply, { limit, code, detail, retryAfterSeconds }: Refusal, metrics: Metrics
): WebsocketGroupsError {
  metrics.upgradeRefused(request.raw, limit)
  if (retryAfterSeconds !== undefined) reply.header('retry-after', retryAfterSeconds)
  return new WebsocketGroupsError(code, detail === '' ? undefined : detail)
}
