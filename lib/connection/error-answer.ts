import { errorCodes, hasCode, type ErrorCode } from '../errors.ts'
import type { ErrorFrame } from '../protocol/frames.ts'

/** The code that a client gets for an error without one. */
const handlerFailed: ErrorCode = 'WSG_HANDLER_FAILED'
/** Status codes from the first number up to the second, which is not included, say that the client is at fault. */
const [clientFault, serverFault] = [400, 500]

/** Whether the cause passes by itself, so that a later try may succeed. */
export function willPass (error: unknown): boolean {
  return hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT', 'WSG_QUEUE_FULL', 'WSG_RATE_LIMITED')
}

/** Whether the client caused the error: then the client gets its code and text, and the log gets nothing. */
export function isClientFault (error: unknown): boolean {
  const { statusCode } = toObject(error)
  return typeof statusCode === 'number' && Number.isInteger(statusCode) && statusCode >= clientFault && statusCode < serverFault
}

/** How many characters the text of an error may have. */
const maxMessageLength = 4_096
/** How many bytes the details of an error may have. */
const maxDetailsBytes = 16_384

/**
 * Describes an error to a client. Codes and texts of errors that are the server's fault (without a status from 400 to 499) may name hosts,
 * queries or files, so the client gets only those of this package.
 */
export function describeError (error: unknown): Pick<ErrorFrame, 'code' | 'message' | 'details'> {
  const { code, message, details, validation } = toObject(error)
  if (isClientFault(error) && typeof message === 'string') {
    // Codes of some libraries contain the name of what failed.
    const shown = typeof code === 'string' && /^[\w./:-]{1,64}$/.test(code) ? code : handlerFailed
    return { code: shown, message: shortened(message), details: asDetails(details ?? validation) }
  }
  const known = typeof code === 'string' && Object.hasOwn(errorCodes, code) ? code as ErrorCode : handlerFailed
  return { code: known, message: errorCodes[known].text }
}

function shortened (message: string): string {
  return message.length > maxMessageLength ? `${message.slice(0, maxMessageLength)}…` : message
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
