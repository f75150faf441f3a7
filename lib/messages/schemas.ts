import { isThenable } from '../connection/inbound/callback-results.ts'
import { WebsocketGroupsError } from '../errors.ts'
import type { MessageSchema, StandardSchema } from '../types/messages.ts'
import type { Compilers } from './compilers.ts'

/**
 * Returns the data, with the changes that the schema makes (defaults, coercion), or a promise of them.
 * @throws {WebsocketGroupsError} with the code it was compiled for
 */
export type Check = (data: unknown) => unknown

/** Returns the data as JSON text, or a promise of it. @throws {WebsocketGroupsError} with the code it was compiled for */
export type Serialize = (data: unknown) => string | Promise<string>

/** How many problems the text of an error names. */
const maxTold = 3

/** What a schema is compiled for: the code of its errors, and the message or event that their text names. */
interface Subject {
  readonly code: 'WSG_MESSAGE_INVALID' | 'WSG_EVENT_INVALID' | 'WSG_HANDLER_FAILED'
  readonly name: string
}

export function compileCheck (schema: MessageSchema | undefined, what: Subject, compilers: Compilers): Check {
  if (schema === undefined) return data => data
  if (schema === 'binary') return data => bytesOf(data, what)
  if (isStandard(schema)) return standardCheck(schema, what)
  const validate = compilers.validator(schema)
  return data => {
    const result: unknown = validate(data)
    if (!isThenable(result)) return outcome(result, data, validate, what)
    return Promise.resolve(result).then(awaited => outcome(awaited, data, validate, what), (error: unknown) => {
      // Ajv rejects where the data does not fit. An error without a list of problems is a failure of the validator itself.
      throw problemsOf(error) === undefined ? error : invalid(what, error)
    })
  }
}

/** A Standard Schema cannot serialize: the data is checked, and written by `JSON.stringify`. */
export function compileSerializer (schema: Exclude<MessageSchema, 'binary'>, what: Subject, compilers: Compilers): Serialize {
  if (!isStandard(schema)) {
    const serialize = compilers.serializer(schema)
    return data => toText(() => serialize(data), what)
  }
  const check = standardCheck(schema, what)
  return async data => {
    const checked = await check(data)
    return toText(() => JSON.stringify(checked), what)
  }
}

/** Asks for the property alone, not for an object: a Standard Schema of some libraries (ArkType) is a function. */
export function isStandard (schema: MessageSchema): schema is StandardSchema {
  return schema !== 'binary' && '~standard' in schema
}

/** Writes `null` for what has no form in JSON, such as a function: `JSON.stringify` has no text for it, fast-json-stringify a wrong one. */
function toText (write: () => string | undefined, what: Subject): string {
  try {
    const text = write()
    return text === undefined || text === 'undefined' ? 'null' : text
  } catch (error) {
    throw invalid(what, error)
  }
}

function standardCheck (schema: StandardSchema, what: Subject): Check {
  const accept = (result: Awaited<ReturnType<StandardSchema['~standard']['validate']>>): unknown => {
    if (result.issues !== undefined) throw invalid(what, result.issues)
    return result.value
  }
  return data => {
    const result = schema['~standard'].validate(data)
    return isThenable(result) ? Promise.resolve(result).then(accept) : accept(result)
  }
}

/** Evaluates the result of a Fastify validator: `false` or an `error` refuses the data, a `value` replaces it. */
function outcome (result: unknown, data: unknown, validate: { readonly errors?: unknown }, what: Subject): unknown {
  if (result === false) throw invalid(what, validate.errors)
  if (typeof result !== 'object' || result === null) return data
  if ('error' in result && result.error !== undefined && result.error !== null) throw invalid(what, result.error)
  return 'value' in result ? result.value : data
}

function bytesOf (data: unknown, what: Subject): unknown {
  if (data instanceof Uint8Array) return data
  throw invalid(what, [{ message: 'must be binary' }])
}

function invalid ({ code, name }: Subject, problem: unknown): WebsocketGroupsError {
  const details = problem instanceof Error ? problemsOf(problem) ?? [{ message: problem.message }] : problem
  const told = Array.isArray(details)
    ? details.slice(0, maxTold).map(describe).join(', ')
    : String((problem as Error | null)?.message ?? '')
  return new WebsocketGroupsError(code, `${name}: ${told}`, { details })
}

/** Returns the list of problems in an error of a validator, whatever the library calls it. An AggregateError lists what broke. */
function problemsOf (error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof AggregateError) return undefined
  const { validation, issues, errors } = error as Error & Readonly<Record<'validation' | 'issues' | 'errors', unknown>>
  return [validation, issues, errors].find(Array.isArray)
}

/** As Fastify words it: `data/text must be string`. */
function describe (problem: unknown): string {
  const { instancePath, path, message } = (problem ?? {}) as Readonly<Record<'instancePath' | 'path' | 'message', unknown>>
  const steps = Array.isArray(path) ? path.map((step: unknown) => `/${String(isKeyed(step) ? step.key : step)}`).join('') : ''
  return `data${typeof instancePath === 'string' ? instancePath : steps} ${String(message)}`
}

function isKeyed (step: unknown): step is { readonly key: unknown } {
  return typeof step === 'object' && step !== null && 'key' in step
}
