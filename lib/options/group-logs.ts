import type { WebsocketGroupsOptions } from './types.ts'
import type { LogSettings } from '../types.ts'

const maxRemembered = 10_000

export const defaultLog: LogSettings = { maxMessages: 100, ttlMs: 300_000 }

/** Which log each group has, by the options `log` and `logs`. */
export class GroupLogs {
  readonly #default: LogSettings | undefined
  readonly #exact = new Map<string, LogSettings | undefined>()
  /** Longest first, so that the first one that fits is the most exact. */
  readonly #prefixes: ReadonlyArray<readonly [prefix: string, settings: LogSettings | undefined]>
  readonly #choose: ((group: string) => LogSettings | false | undefined) | undefined
  /** Answers by prefix, so that a broadcast does not walk the list. */
  readonly #known = new Map<string, LogSettings | undefined>()

  constructor ({ log, logs }: { readonly log: NonNullable<WebsocketGroupsOptions['log']>, readonly logs: WebsocketGroupsOptions['logs'] }) {
    this.#default = orNone(log)
    this.#choose = typeof logs === 'function' ? logs : undefined
    const named = Object.entries(typeof logs === 'function' ? {} : logs ?? {})
    for (const [name, settings] of named) if (!name.endsWith('*')) this.#exact.set(name, orNone(settings))
    this.#prefixes = named.filter(([name]) => name.endsWith('*'))
      .map(([name, settings]) => [name.slice(0, -1), orNone(settings)] as const)
      .sort(([a], [b]) => b.length - a.length)
  }

  /** `undefined`: the group has no log. */
  of (group: string): LogSettings | undefined {
    if (this.#choose !== undefined) {
      const chosen = this.#choose(group)
      return chosen === undefined ? this.#default : orNone(chosen)
    }
    if (this.#exact.has(group)) return this.#exact.get(group)
    return this.#prefixes.length === 0 ? this.#default : this.#byPrefix(group)
  }

  #byPrefix (group: string): LogSettings | undefined {
    if (this.#known.has(group)) return this.#known.get(group)
    const fitting = this.#prefixes.find(([prefix]) => group.startsWith(prefix))
    const settings = fitting === undefined ? this.#default : fitting[1]
    if (this.#known.size >= maxRemembered) this.#known.clear()
    this.#known.set(group, settings)
    return settings
  }
}

function orNone (settings: LogSettings | false): LogSettings | undefined {
  return settings === false ? undefined : settings
}
