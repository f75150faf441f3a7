import type { Backplane } from './backplane/backplane.ts'
import { hasCode } from './errors.ts'
import { assertGroupName } from './group-name.ts'
import type { Hub } from './hub.ts'
import type { Member, MemberList, OutagePolicy, ReadOptions } from './types.ts'

const maxRemembered = 10_000

interface Known<Value> { readonly value: Value, readonly at: number }

/** Reads members and counts from the backplane; while it is out, answers with what was last known. */
export class Readings {
  readonly #hub: Hub
  readonly #backplane: Backplane
  readonly #policy: OutagePolicy['reads']
  readonly #counts = new Map<string, Known<number>>()
  readonly #members = new Map<string, Known<readonly Member[]>>()

  constructor (hub: Hub, backplane: Backplane, policy: OutagePolicy['reads']) {
    this.#hub = hub
    this.#backplane = backplane
    this.#policy = policy
  }

  async count (group: string, options?: ReadOptions): Promise<number> {
    const read = await this.#read(group, this.#counts, () => this.#backplane.count(group), () => this.#hub.members(group).length, options)
    return read.value
  }

  async members (group: string, options?: ReadOptions): Promise<MemberList> {
    const { value, ageMs } = await this.#read(group, this.#members, () => this.#backplane.members(group), () => this.#hub.members(group), options)
    return Object.assign([...value], { ageMs })
  }

  async #read<Value> (
    group: string, known: Map<string, Known<Value>>, ask: () => Promise<Value>, here: () => Value, { maxAgeMs = Infinity }: ReadOptions = {}
  ): Promise<{ readonly value: Value, readonly ageMs: number }> {
    assertGroupName(group)
    try {
      const value = await ask()
      remember(known, group, value)
      return { value, ageMs: 0 }
    } catch (error) {
      if (this.#policy === 'reject' || !hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT')) throw error
      const last = known.get(group)
      if (last !== undefined && performance.now() - last.at <= maxAgeMs) return { value: last.value, ageMs: performance.now() - last.at }
      // Never asked before: what this instance holds is all it knows, and how old the rest would be nobody can tell.
      if (last === undefined && maxAgeMs === Infinity && this.#hub.has(group)) return { value: here(), ageMs: Infinity }
      throw error
    }
  }
}

/** The entry that was not refreshed for the longest time makes room. */
function remember<Value> (known: Map<string, Known<Value>>, group: string, value: Value): void {
  known.delete(group)
  known.set(group, { value, at: performance.now() })
  if (known.size <= maxRemembered) return
  for (const oldest of known.keys()) {
    known.delete(oldest)
    return
  }
}
