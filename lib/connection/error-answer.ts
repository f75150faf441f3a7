import { errorCodes, type ErrorCode } from '../errors.ts'
import type { ErrorFrame } from '../protocol/frames.ts'

/** What a client is told of an error without a code. */
const handlerFailed: ErrorCode = 'WSG_HANDLER_FAILED'
/** How many bytes the details of an error may have. */
const maxDetailsBytes = 16_384

/**
 * What a client is told of an error. The codes and texts of errors that are the fault of the server (without a status from 400 to 499) may
 * name hosts, queries or files, so they stay here unless they are this package's own.
 */
export function describeError (error: unknown): Pick<ErrorFrame, 'code' | 'message' | 'details'> {
  const { code, statusCode, message, details, validation } = toObject(error)
  if (isClientFault(statusCode) && typeof message === 'string') {
    // Some libraries put the name of what failed into their codes.
    const shown = typeof code === 'string' && /^[\w./:-]{1,64}$/.test(code) ? code : handlerFailed
    return { code: shown, message, details: asDetails(details ?? validation) }
  }
  const known = typeof code === 'string' && Object.hasOwn(errorCodes, code) ? code as ErrorCode : handlerFailed
  return { code: known, message: errorCodes[known].text }
}

/** Whether an error with this `statusCode` is the fault of the client, and so was written for it. */
export function isClientFault (statusCode: unknown): boolean {
  return typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500
}

/** The details as JSON keeps them; nothing where JSON cannot express them, or where they are too large. */
function asDetails (details: unknown): unknown {
  if (details === undefined || details === null) return undefined
  try {
    const text = JSON.stringify(details) as string | undefined
    return text === undefined || Buffer.byteLength(text) > maxDetailsBytes ? undefined : JSON.parse(text)
  } catch {
    return undefined // a cycle, or a BigInt
  }
}

type ErrorFields = Readonly<Partial<Record<'code' | 'statusCode' | 'message' | 'details' | 'validation', unknown>>>

function toObject (value: unknown): ErrorFields {
  return typeof value === 'object' && value !== null ? value : {}
}
