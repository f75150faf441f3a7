import { WebsocketGroupsError } from '../errors.ts'

/** Which values an option takes. */
export interface Rule {
  /** What follows "must be" in the error message. */
  readonly allowed: string
  readonly accepts: (value: unknown) => boolean
  /** The value may hold a password, or with `'all'` is one: error messages show the value without it, or only its length. */
  readonly secret?: boolean | 'all' | undefined
}

type Rules = Readonly<Record<string, Rule>>

/** The longest time that a timer of Node.js can wait (milliseconds): a longer one would fire at once. */
export const maxTimerMs = 2_147_483_647

export const aFunction: Rule = { allowed: 'a function', accepts: value => typeof value === 'function' }
export const anObject: Rule = { allowed: 'an object', accepts: isObject }
/** The option `presence` of routes. */
export const aPresence: Rule = { allowed: "true, false or 'count'", accepts: value => typeof value === 'boolean' || value === 'count' }

export const aBoolean: Rule = oneOf(true, false)

/** What `isKeyText` demands, for error messages. */
export const keyText = 'without braces, spaces, control characters and lone surrogates'

/**
 * Whether names of keys may begin with the text. Braces are refused because the hash tag stands between the first ones of a key, lone
 * surrogates because Redis gets names as UTF-8.
 */
export function isKeyText (text: string): boolean {
  return !/[{}\s\p{Cc}\p{Surrogate}]/u.test(text)
}

export function oneOf (...values: ReadonlyArray<string | number | boolean>): Rule {
  return { allowed: values.map(value => show(value)).join(' or '), accepts: value => values.includes(value as string) }
}

export function integer (min: number, max: number, unit: string): Rule {
  return {
    allowed: `an integer from ${min} to ${max} (${unit})`,
    accepts: value => Number.isInteger(value) && (value as number) >= min && (value as number) <= max
  }
}

/**
 * Checks each given option against its rule. An option that is `undefined` counts as left out, as an unset environment variable does.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID
 */
export function checkOptions (raw: unknown, rules: Rules, where: string, ignored: readonly string[] = []): void {
  if (!isObject(raw)) throw invalid(`${where === '' ? 'the options' : where.replace(/\W+$/, '')} must be an object, got ${show(raw)}`)
  for (const [name, value] of Object.entries(raw as object)) {
    if (ignored.includes(name) || value === undefined) continue
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined
    if (rule === undefined) {
      throw invalid(`there is no option ${where}${name} (got ${showUnknown(name, value)}); there are: ${Object.keys(rules).join(', ')}`)
    }
    check(where + name, value, rule)
  }
}

/** @throws {WebsocketGroupsError} WSG_OPTION_INVALID, naming the option, the value and what is allowed */
export function check (name: string, value: unknown, rule: Rule): void {
  if (!rule.accepts(value)) throw invalid(`${name} must be ${rule.allowed}, got ${describe(value, rule)}`)
}

function describe (value: unknown, { secret = false }: Rule): string {
  return secret === false ? show(value) : withoutPassword(value, secret)
}

export function invalid (detail: string): WebsocketGroupsError {
  return new WebsocketGroupsError('WSG_OPTION_INVALID', detail)
}

/** Describes a value in a few words, for an error message. */
export function show (value: unknown): string {
  if (typeof value === 'string') return `'${value.length > 60 ? `${value.slice(0, 60)}…` : value}'`
  if (typeof value === 'function') return 'a function'
  if (Array.isArray(value)) return 'an array'
  if (typeof value !== 'object' || value === null) return typeof value === 'bigint' ? `${value}n` : String(value)
  const name: unknown = property(property(value, 'constructor'), 'name')
  return typeof name === 'string' && name !== 'Object' ? `an object of class ${name}` : 'an object'
}

/** Whether the value has properties by name: any object but an array. */
export function isObject (value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Whether the value is an object that no class made. */
export function isLiteral (value: unknown): boolean {
  if (!isObject(value)) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

/** Reads a property of any value; `undefined` for values without properties. */
export function property (value: unknown, name: string): unknown {
  return (typeof value === 'object' && value !== null) || typeof value === 'function' ? (value as Record<string, unknown>)[name] : undefined
}

export function withoutUndefined<Options extends object> (options: Options): Options {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Options
}

function withoutPassword (value: unknown, secret: true | 'all'): string {
  if (secret === 'all') return typeof value === 'string' ? `a string of ${value.length} characters` : 'something else'
  // The query of a URL may hold a password, too.
  return show(typeof value === 'string' ? value.replace(/\?.*/s, '?***').replace(/^(.*?:\/\/)?.*@/s, '$1***@') : value)
}

/** Shows the value of an unknown option: a misspelt one may hold a password. */
function showUnknown (name: string, value: unknown): string {
  return withoutPassword(value, /pass|pw|secret|token|auth|key|cred/i.test(name) && !/prefix|prfix/i.test(name) ? 'all' : true)
}

/** Whether the value has a function `then`: a promise of whatever library. */
export function isThenable (value: unknown): value is PromiseLike<unknown> {
  return typeof property(value, 'then') === 'function'
}
