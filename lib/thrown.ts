import { types } from 'node:util'

/*
 * A service may throw anything: not an error at all, a frozen one, one with a getter that throws. Reading or logging such a value throws in
 * turn, often where nobody is left to catch it, and would end the process with everybody's connections.
 */

/** How deep a chain of causes is checked. Loggers go deeper, but no program makes a longer chain. */
const maxDepth = 20
/** What this package, Fastify and loggers read from an error. */
const readFields = [
  'name', 'message', 'stack', 'code', 'statusCode', 'status', 'headers', 'closeCode', 'closeReason', 'details', 'validation'
] as const

type Fields = Readonly<Record<string, unknown>>

/** What a function of the service threw, as an error that can be read and logged: the same one wherever that is possible. */
export function toError (thrown: unknown): Error {
  try {
    if (!(thrown instanceof Error)) return notAnError(thrown)
    if (isSound(thrown)) return thrown
    const thawed = thaw(thrown)
    return isSound(thawed) ? thawed : copyOf(thrown)
  } catch {
    return copyOf(thrown)
  }
}

function notAnError (thrown: unknown): Error {
  if (types.isNativeError(thrown) && isSound(thrown)) return errorOf(thrown)
  const text = `a callback threw a non-Error value: ${typeof thrown === 'string' ? thrown : typeof thrown}`
  // Loggers call a cause that is a function.
  const isLoggable = isErrorLike(thrown) ? isSound(thrown) : typeof thrown !== 'function'
  return isLoggable ? new Error(text, { cause: thrown }) : new Error(text)
}

/**
 * Copies an error of another realm, such as that of a test runner, into one of this realm. Objects that only look like errors are not
 * copied: their text may not be meant for anybody.
 */
function errorOf (thrown: Error): Error {
  const { name, stack, ...said } = Object.fromEntries(readFields.map(name => [name, (thrown as unknown as Fields)[name]]))
  return Object.assign(new Error(thrown.message, { cause: thrown }), withoutUndefined(said))
}

function withoutUndefined (fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

/**
 * Whether everything that a logger looks at can be read. Loggers also mark the errors that they have seen, so an error must be extensible.
 * `seen`: the errors that were checked already, because errors may refer to each other.
 */
function isSound (error: object, seen = new Set<object>(), depth = 0): boolean {
  if (depth === maxDepth || seen.has(error)) return true
  seen.add(error)
  if (!Object.isExtensible(error)) return false
  const fields = error as Fields
  // In some libraries the cause is a method, which loggers call.
  if (typeof fields.cause === 'function') return false
  const values = [...readFields, 'constructor', 'cause', ...enumerableOf(fields)].map(name => fields[name])
  const nested = Array.isArray(fields.errors) ? [...values, ...fields.errors as unknown[]] : values
  return nested.every(value => !isErrorLike(value) || isSound(value, seen, depth + 1))
}

/** Names of enumerable fields, inherited ones included: loggers list those as well. */
function enumerableOf (fields: Fields): string[] {
  const names: string[] = []
  for (const name in fields) names.push(name)
  return names
}

function isErrorLike (value: unknown): value is Error {
  return typeof value === 'object' && value !== null && typeof (value as Fields).message === 'string'
}

/** A copy of a frozen error that can be extended and changed. */
function thaw (error: Error): Error {
  const fields = Object.entries(Object.getOwnPropertyDescriptors(error))
    .map(([name, field]) => [name, { ...field, configurable: true, ...('value' in field ? { writable: true } : {}) }] as const)
  return Object.create(Object.getPrototypeOf(error) as object, Object.fromEntries(fields)) as Error
}

/** A new error with as much of the old one as can be read. */
function copyOf (error: unknown): Error {
  const copy = new Error('an error was thrown that cannot be read')
  const fields = copy as unknown as Record<string, unknown>
  for (const name of readFields) {
    try {
      const value = (error as Fields)[name]
      if (typeof value === 'string' || typeof value === 'number') fields[name] = value
    } catch {
      // A field that cannot be read is left out.
    }
  }
  return copy
}
