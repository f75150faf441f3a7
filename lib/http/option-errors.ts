import { isClientFault } from '../connection/error-answer.ts'
import { errorCodes, WebsocketGroupsError } from '../errors.ts'

/** Codes of Fastify and its plugins: they name a kind of failure, and tell nothing about the service. */
const fastifyCode = /^FST_[A-Z0-9_]{1,60}$/

/**
 * What a client is told when an option or a hook of the service threw. An error with a `statusCode` from 400 to 499 was made for the client
 * and stays as it is. The text of any other error may name hosts, queries or passwords: it becomes the `cause`, for the log alone, of an
 * error that tells nothing but its code. `status` is the one that the error asks for.
 */
export function toAnswer (error: Error, status = statusOf(error)): Error {
  if (isClientFault(error)) return error
  // An error without a detail has nothing to hide, and was logged before.
  if (error instanceof WebsocketGroupsError && error.detail === undefined) return error
  const statusCode = serverStatus(status)
  const { code } = error as { readonly code?: unknown }
  if (typeof code === 'string' && fastifyCode.test(code)) {
    return Object.assign(new Error(errorCodes.WSG_HANDLER_FAILED.text, { cause: error }), { code, statusCode })
  }
  const own = error instanceof WebsocketGroupsError ? error.code : 'WSG_HANDLER_FAILED'
  return new WebsocketGroupsError(own, undefined, { cause: error, statusCode })
}

/** The HTTP status that an error asks for; 0 for none. HTTP clients call it `status`, Fastify calls it `statusCode`. */
export function statusOf (error: unknown): number {
  if (typeof error !== 'object' || error === null) return 0
  try {
    const fields = error as { readonly statusCode?: unknown, readonly status?: unknown }
    const status = Number(fields.statusCode ?? fields.status ?? 0)
    return Number.isInteger(status) ? status : 0
  } catch {
    return 0 // a field that cannot be read asks for nothing
  }
}

/** The status with which Fastify answers what a hook threw: its own one, or the one that the hook gave the reply. */
export function statusWithReply (thrown: unknown, replyStatus: number): number {
  const own = statusOf(thrown)
  return own >= 400 && own <= 599 ? own : replyStatus
}

/** Whether the whole answer is meant for the client. */
export function isClientStatus (status: number): boolean {
  return status >= 400 && status < 500
}

function serverStatus (status: number): number {
  return status >= 500 && status <= 599 ? status : 500
}
