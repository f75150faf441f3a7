import { isClientFault } from '../connection/error-answer.ts'
import { WebsocketGroupsError } from '../errors.ts'

/**
 * What a client is told when an option of the service threw. An error with a `statusCode` from 400 to 499 was made for the client and stays
 * as it is. The text of any other error may name hosts, queries or passwords: it becomes the `cause`, for the log alone, of an error that
 * tells nothing but its code.
 */
export function toAnswer (error: Error): Error {
  if (isClientFault(error)) return error
  // Has no detail, and was logged before.
  if (error instanceof WebsocketGroupsError && error.detail === undefined) return error
  const code = error instanceof WebsocketGroupsError ? error.code : 'WSG_HANDLER_FAILED'
  return new WebsocketGroupsError(code, undefined, { cause: error, statusCode: serverStatus(statusOf(error)) })
}

/** The HTTP status that an error asks for; 0 for none. HTTP clients call it `status`, Fastify calls it `statusCode`. */
export function statusOf (error: unknown): number {
  if (typeof error !== 'object' || error === null) return 0
  const fields = error as { readonly statusCode?: unknown, readonly status?: unknown }
  const status = Number(fields.statusCode ?? fields.status ?? 0)
  return Number.isInteger(status) ? status : 0
}

function serverStatus (status: number): number {
  return status >= 500 && status <= 599 ? status : 500
}
