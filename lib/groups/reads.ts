import type { Backplane } from '../backplane/backplane.ts'
import { BoundedMap } from '../bounded-map.ts'
import { isOutage } from '../errors.ts'
import { assertGroupName } from '../group-name.ts'
import type { Hub } from '../hub/hub.ts'
import type { OutagePolicy } from '../options/types.ts'
import type { Member, MemberList, MembersOptions, PageOptions, PresenceList, ReadOptions } from '../types.ts'
import { listOf, memberPage, presencePage } from './lists.ts'

const maxCounts = 10_000
const maxMembers = 100_000

/** Reads members and counts from the backplane. While the backplane is out, answers with what was last known, if the policy allows it. */
export class GroupReads {
  readonly #hub: Hub
  readonly #backplane: Backplane
  readonly #policy: OutagePolicy['reads']
  /** The latest answers, by group, to use while the backplane is out. */
  readonly #counts = new BoundedMap<string, number>({ maxWeight: maxCounts })
  readonly #known = new BoundedMap<string, readonly Member[]>({ maxWeight: maxMembers, weigh: ({ length }) => 1 + length })

  constructor (hub: Hub, backplane: Backplane, policy: OutagePolicy['reads']) {
    this.#hub = hub
    this.#backplane = backplane
    this.#policy = policy
  }

  async count (group: string, options?: ReadOptions): Promise<number> {
    const [ask, here] = [async () => await this.#backplane.count(group), () => this.#hub.members(group).length]
    return (await this.#read(group, this.#counts, ask, here, options)).value
  }

  async members (group: string, { userId, cursor, limit, ...options }: ReadOptions & MembersOptions = {}): Promise<MemberList> {
    const { value, ageMs } = await this.#members(group, options)
    return listOf(memberPage(value, { userId, cursor, limit }), { ageMs })
  }

  /** The people behind the members: see `Registry.presence`. */
  async presence (group: string, { cursor, limit, ...options }: ReadOptions & PageOptions = {}): Promise<PresenceList> {
    const { value, ageMs } = await this.#members(group, options)
    return listOf(presencePage(value, { cursor, limit }), { ageMs })
  }

  async #members (group: string, options: ReadOptions): Promise<Reading<readonly Member[]>> {
    const [ask, here] = [async () => await this.#backplane.members(group), () => this.#hub.members(group)]
    const reading = await this.#read<readonly Member[]>(group, this.#known, ask, here, options)
    // `BoundedMap` keeps its newest entry even when that is too heavy.
    if (reading.value.length >= maxMembers) this.#known.delete(group)
    return reading
  }

  async #read<Value> (
    group: string, known: BoundedMap<string, Value>, ask: () => Promise<Value>, here: () => Value, { maxAgeMs = Infinity }: ReadOptions = {}
  ): Promise<Reading<Value>> {
    assertGroupName(group)
    try {
      const value = await ask()
      known.set(group, value)
      return { value, ageMs: 0 }
    } catch (error) {
      if (this.#policy === 'reject' || !isOutage(error)) throw error
      const [value, ageMs] = [known.get(group), known.ageMs(group)]
      if (value !== undefined && ageMs !== undefined && ageMs <= maxAgeMs) return { value, ageMs }
      // No answer is remembered: answer for this instance alone. `ageMs: Infinity` says that the others are unknown.
      if (value === undefined && maxAgeMs === Infinity && this.#hub.has(group)) return { value: here(), ageMs: Infinity }
      throw error
    }
  }
}

interface Reading<Value> { readonly value: Value, readonly ageMs: number }
