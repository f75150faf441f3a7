import { errorCodes, type ErrorCode } from '../errors.ts'

const fallback: ErrorCode = 'WSG_HANDLER_FAILED'

/** What a client is told of an error. The texts of errors that are the server's own (no status, or 500 and up) may name hosts, queries or files: they stay here. */
export function describeError (error: unknown): { readonly code: string, readonly message: string } {
  const { code, statusCode, message } = (typeof error === 'object' && error !== null ? error : {}) as { code?: unknown, statusCode?: unknown, message?: unknown }
  const known = typeof code === 'string' && code !== '' ? code : fallback
  if (typeof statusCode === 'number' && statusCode < 500 && typeof message === 'string') return { code: known, message }
  return { code: known, message: errorCodes[Object.hasOwn(errorCodes, known) ? known as ErrorCode : fallback].text }
}
