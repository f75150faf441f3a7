import { BoundedMap } from '../bounded-map.ts'
import { WebsocketGroupsError } from '../errors.ts'
import { toError } from '../thrown.ts'
import type { LogLimits } from '../backplane/backplane.ts'
import type { LogSettings } from '../types.ts'
import { userOfLog } from '../backplane/user-log.ts'
import { check, checkOptions, integer, isObject, isThenable, property, show, withoutUndefined, type Rule } from './rules.ts'
import type { WebsocketGroupsOptions } from './types.ts'

/** For how many groups the settings found by prefix are remembered. */
const maxRemembered = 10_000

export const defaultLog: LogLimits = { maxMessages: 1_000, maxBytes: 1_048_576, ttlMs: 300_000 }

export const defaultUserLog: LogLimits = { maxMessages: 100, maxBytes: 262_144, ttlMs: 300_000 }

export const logRule: Rule = {
  allowed: 'false or { maxMessages, maxBytes?, ttlMs }',
  accepts: value => value === false || (isObject(value) && !isThenable(value))
}

/** The longest that a log may be kept after its latest message. */
export const maxTtlMs = 2_592_000_000

const logRules = {
  maxMessages: integer(1, 10_000, 'messages'),
  maxBytes: integer(1, 1_073_741_824, 'bytes'),
  ttlMs: integer(1_000, maxTtlMs, 'ms')
} as const satisfies Record<keyof LogSettings, Rule>

/**
 * Checks the settings of a log.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID
 */
export function checkLog (log: unknown, name: string): asserts log is LogSettings | false {
  check(name, log, logRule)
  if (log === false) return
  // These two are required, and `checkOptions` ignores what is left out.
  for (const field of ['maxMessages', 'ttlMs'] as const) check(`${name}.${field}`, property(log, field), logRules[field])
  checkOptions(log, logRules, `${name}.`)
}

interface LogOptions extends Pick<WebsocketGroupsOptions, 'logs' | 'userLog'> {
  readonly log: NonNullable<WebsocketGroupsOptions['log']>
}

/** The settings of each log: of groups by the options `log` and `logs`, of users by the option `userLog`. */
export class GroupLogs {
  readonly #default: LogLimits | false
  readonly #users: LogLimits | false
  readonly #exact = new Map<string, LogLimits | false>()
  /** Longest first, so that the first prefix that fits is the one that counts. */
  readonly #prefixes: ReadonlyArray<readonly [prefix: string, limits: LogLimits | false]>
  readonly #choose: ((group: string) => unknown) | undefined
  /** Settings by group that were found by prefix, so that not every broadcast searches the list. */
  readonly #known = new BoundedMap<string, LogLimits | false>({ maxWeight: maxRemembered })
  /** Results of the function `logs` that passed the check: usually it returns the same few objects. */
  readonly #checked = new WeakMap<object, LogLimits>()

  constructor ({ log, logs, userLog = false }: LogOptions) {
    this.#default = withDefaults(log)
    this.#users = withDefaults(userLog)
    this.#choose = typeof logs === 'function' ? logs : undefined
    const named = Object.entries(withoutUndefined(typeof logs === 'function' ? {} : logs ?? {}))
    for (const [name, settings] of named) if (!name.endsWith('*')) this.#exact.set(name, withDefaults(settings))
    this.#prefixes = named.filter(([name]) => name.endsWith('*'))
      .map(([name, settings]) => [name.slice(0, -1), withDefaults(settings)] as const)
      .sort(([a], [b]) => b.length - a.length)
  }

  /**
   * The settings of the group's log; `undefined`: the group has none.
   * @throws {WebsocketGroupsError} WSG_OPTION_INVALID when the function `logs` throws, or returns something that is not a setting
   */
  of (group: string): LogLimits | undefined {
    const settings = this.#settingsOf(group)
    return settings === false ? undefined : settings
  }

  /**
   * Whether the group has a log, for callers that have nobody to report an error to. When the function `logs` gives no usable answer, the
   * group counts as having a log: its messages are not taken for volatile ones, and joins and broadcasts get the error.
   */
  has (group: string): boolean {
    try {
      return this.of(group) !== undefined
    } catch {
      return true
    }
  }

  #settingsOf (group: string): LogLimits | false {
    if (userOfLog(group) !== undefined) return this.#users
    return this.#choose === undefined ? this.#exact.get(group) ?? this.#byPrefix(group) : this.#chosen(this.#choose, group)
  }

  #chosen (choose: (group: string) => unknown, group: string): LogLimits | false {
    const settings = call(choose, group)
    if (settings === undefined) return this.#default
    const checked = typeof settings === 'object' && settings !== null ? this.#checked.get(settings) : undefined
    if (checked !== undefined) return checked
    // The promise is refused below; without a handler its rejection would end the process.
    if (isThenable(settings)) Promise.resolve(settings).catch(() => undefined)
    checkLog(settings, `what logs(${show(group)}) returns`)
    const limits = withDefaults(settings)
    if (settings !== false && limits !== false) this.#checked.set(settings, limits)
    return limits
  }

  #byPrefix (group: string): LogLimits | false {
    if (this.#prefixes.length === 0) return this.#default
    const known = this.#known.get(group)
    if (known !== undefined) return known
    const fitting = this.#prefixes.find(([prefix]) => group.startsWith(prefix))
    const settings = fitting === undefined ? this.#default : fitting[1]
    this.#known.set(group, settings)
    return settings
  }
}

/** The settings in whole: of those of a log `maxBytes` may be left out. */
export function withDefaults (settings: LogSettings | false): LogLimits | false {
  if (settings === false) return false
  const { maxMessages, maxBytes = defaultLog.maxBytes, ttlMs } = settings
  return { maxMessages, maxBytes, ttlMs }
}

function call (choose: (group: string) => unknown, group: string): unknown {
  try {
    return choose(group)
  } catch (error) {
    const cause = toError(error)
    throw new WebsocketGroupsError('WSG_OPTION_INVALID', `logs(${show(group)}) threw: ${cause.message}`, { cause })
  }
}
