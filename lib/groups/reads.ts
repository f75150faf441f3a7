import type { Backplane } from '../backplane/backplane.ts'
import { hasCode, WebsocketGroupsError } from '../errors.ts'
import { assertGroupName } from '../group-name.ts'
import type { Hub } from '../hub/hub.ts'
import type { OutagePolicy } from '../options/types.ts'
import { formatPosition, isLogStart } from '../backplane/position.ts'
import { assertPosition } from '../delivery/backlog.ts'
import type { ProofKeys } from '../delivery/resume-proofs.ts'
import type { History, HistoryOptions, Member, MemberList, ReadOptions } from '../types.ts'

const maxCounts = 10_000
const maxMembers = 100_000
const defaultLimit = 100
const maxLimit = 10_000

/** Reads members and counts from the backplane; while it is out, answers with what was last known. */
export class GroupReads {
  readonly #hub: Hub
  readonly #backplane: Backplane
  readonly #policy: OutagePolicy['reads']
  readonly #proofKeys: ProofKeys
  readonly #counts = new StaleCache<number>(maxCounts, () => 1)
  readonly #members = new StaleCache<readonly Member[]>(maxMembers, members => 1 + members.length)

  constructor (hub: Hub, backplane: Backplane, policy: OutagePolicy['reads'], proofKeys: ProofKeys) {
    this.#hub = hub
    this.#backplane = backplane
    this.#policy = policy
    this.#proofKeys = proofKeys
  }

  async count (group: string, options?: ReadOptions): Promise<number> {
    const read = await this.#read(group, this.#counts, () => this.#backplane.count(group), () => this.#hub.members(group).length, options)
    return read.value
  }

  async members (group: string, options?: ReadOptions): Promise<MemberList> {
    const { value, ageMs } = await this.#read(group, this.#members, () => this.#backplane.members(group), () => this.#hub.members(group), options)
    return Object.assign([...value], { ageMs })
  }

  async history (group: string, { since, limit = defaultLimit, reverse = false }: HistoryOptions = {}): Promise<History> {
    assertGroupName(group)
    if (!Number.isInteger(limit) || limit < 1) throw new WebsocketGroupsError('WSG_OPTION_INVALID', `limit is a positive integer, got ${String(limit)}`)
    const { gap, messages, end: top, more } = await this.#backplane.history(group, since === undefined ? undefined : assertPosition(since), Math.min(limit, maxLimit))
    const read = messages.map(({ payload, binary, position = top }) => ({ data: binary ? payload : payload.toString(), position: formatPosition(position) }))
    // The page of an empty group resumes from its beginning, which it has to prove.
    const position = isLogStart(top) ? (await this.#proofKeys.proofs()).format(group, top) : formatPosition(top)
    return { messages: reverse ? read.reverse() : read, position, ...(gap === undefined ? {} : { gap }), more }
  }

  async #read<Value> (
    group: string, known: StaleCache<Value>, ask: () => Promise<Value>, here: () => Value, { maxAgeMs = Infinity }: ReadOptions = {}
  ): Promise<Reading<Value>> {
    assertGroupName(group)
    try {
      const value = await ask()
      known.set(group, value)
      return { value, ageMs: 0 }
    } catch (error) {
      if (this.#policy === 'reject' || !hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT')) throw error
      const last = known.get(group)
      if (last !== undefined && last.ageMs <= maxAgeMs) return last
      // Never asked before: what this instance holds is all it knows, and how old the rest would be nobody can tell.
      if (last === undefined && maxAgeMs === Infinity && this.#hub.has(group)) return { value: here(), ageMs: Infinity }
      throw error
    }
  }
}

interface Reading<Value> { readonly value: Value, readonly ageMs: number }

/** The latest value of each group, as long as there is room: what was not refreshed for the longest time goes first. */
class StaleCache<Value> {
  readonly #maxWeight: number
  readonly #weigh: (value: Value) => number
  readonly #values = new Map<string, { readonly value: Value, readonly at: number }>()
  #weight = 0

  constructor (maxWeight: number, weigh: (value: Value) => number) {
    this.#maxWeight = maxWeight
    this.#weigh = weigh
  }

  get (group: string): Reading<Value> | undefined {
    const last = this.#values.get(group)
    return last === undefined ? undefined : { value: last.value, ageMs: performance.now() - last.at }
  }

  set (group: string, value: Value): void {
    this.#delete(group)
    this.#values.set(group, { value, at: performance.now() })
    this.#weight += this.#weigh(value)
    for (const oldest of this.#values.keys()) {
      if (this.#weight <= this.#maxWeight) break
      this.#delete(oldest)
    }
  }

  #delete (group: string): void {
    const last = this.#values.get(group)
    if (last === undefined) return
    this.#weight -= this.#weigh(last.value)
    this.#values.delete(group)
  }
}
