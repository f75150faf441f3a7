import type { Backplane, LoggedEnvelope, LogPage, LogPosition } from '../backplane/backplane.ts'
import { BoundedMap } from '../bounded-map.ts'
import { hasCode, WebsocketGroupsError } from '../errors.ts'
import { assertGroupName } from '../group-name.ts'
import type { Hub } from '../hub/hub.ts'
import type { OutagePolicy } from '../options/types.ts'
import { formatPosition, isLogStart } from '../backplane/position.ts'
import { assertPosition } from '../delivery/backlog.ts'
import type { ProofKeys } from '../delivery/resume-proofs.ts'
import { keyOf, presentMember, Roster } from '../presence/roster.ts'
import type {
  History, HistoryOptions, Member, MemberList, PageOptions, PresenceEntry, PresenceList, ReadOptions
} from '../types.ts'
import { pageOf } from './pages.ts'

const maxCounts = 10_000
const maxMembers = 100_000
const defaultLimit = 100
const maxLimit = 10_000
/** Where a list of messages ends, whatever its limit is. */
const maxHistoryBytes = 4_194_304

/**
 * Reads members, counts and logs from the backplane. While the backplane is out, answers with the members and counts that were last known.
 */
export class GroupReads {
  readonly #hub: Hub
  readonly #backplane: Backplane
  readonly #policy: OutagePolicy['reads']
  readonly #proofKeys: ProofKeys
  /** The latest answers, by group, for when the backplane is out. */
  readonly #counts = new BoundedMap<string, number>({ maxWeight: maxCounts })
  readonly #members = new BoundedMap<string, readonly Member[]>({ maxWeight: maxMembers, weigh: ({ length }) => 1 + length })

  constructor (hub: Hub, backplane: Backplane, policy: OutagePolicy['reads'], proofKeys: ProofKeys) {
    this.#hub = hub
    this.#backplane = backplane
    this.#policy = policy
    this.#proofKeys = proofKeys
  }

  async count (group: string, options?: ReadOptions): Promise<number> {
    const [ask, here] = [async () => await this.#backplane.count(group), () => this.#hub.members(group).length]
    return (await this.#read(group, this.#counts, ask, here, options)).value
  }

  async members (group: string, options?: ReadOptions): Promise<MemberList> {
    const [ask, here] = [async () => await this.#backplane.members(group), () => this.#hub.members(group)]
    const { value, ageMs } = await this.#read<readonly Member[]>(group, this.#members, ask, here, options)
    // A map keeps its newest entry however heavy that is.
    if (value.length >= maxMembers) this.#members.delete(group)
    return Object.assign([...value], { ageMs })
  }

  /** The people behind the members: see `Registry.presence`. */
  async presence (group: string, { cursor, limit, ...options }: ReadOptions & PageOptions = {}): Promise<PresenceList> {
    const members = await this.members(group, options)
    const roster = new Roster()
    for (const member of members) roster.add(presentMember(member))
    const page = pageOf(roster.entries(), keyOf, { cursor, limit })
    return Object.assign([...page.items] as PresenceEntry[], {
      ageMs: members.ageMs, ...(page.cursor === undefined ? {} : { cursor: page.cursor })
    })
  }

  async history (group: string, { since, limit = defaultLimit, reverse = false }: HistoryOptions = {}): Promise<History> {
    assertGroupName(group)
    if (!Number.isInteger(limit) || limit < 1) {
      throw new WebsocketGroupsError('WSG_OPTION_INVALID', `limit must be a positive integer, got ${String(limit)}`)
    }
    const from = since === undefined ? undefined : assertPosition(since)
    const { gap, messages, end, more } = await this.#pages(group, from, Math.min(limit, maxLimit))
    const read = messages.map(({ payload, binary, position = end }) => {
      return { data: binary ? payload : payload.toString(), position: formatPosition(position) }
    })
    // The page of an empty group resumes from its beginning, which the reader has to prove.
    const position = isLogStart(end) ? (await this.#proofKeys.proofs()).format(group, end) : formatPosition(end)
    return { messages: reverse ? read.reverse() : read, position, ...(gap === undefined ? {} : { gap }), more }
  }

  /** Page by page, as many as it takes. What is trimmed meanwhile ends the list: the next read is told so. */
  async #pages (group: string, since: LogPosition | undefined, limit: number): Promise<LogPage> {
    const first = await this.#backplane.history(group, since, limit)
    const messages = [...first.messages]
    let { more } = first
    let bytes = sizeOf(messages)
    while (more && messages.length < limit && bytes < maxHistoryBytes) {
      const last = messages.at(-1)
      if (last === undefined) break
      const page = await this.#backplane.history(group, last.position, limit - messages.length)
      if (page.gap !== undefined) break
      messages.push(...page.messages)
      more = page.more
      bytes += sizeOf(page.messages)
    }
    return { ...first, messages, more }
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
      if (this.#policy === 'reject' || !hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT')) throw error
      const [value, ageMs] = [known.get(group), known.ageMs(group)]
      if (value !== undefined && ageMs !== undefined && ageMs <= maxAgeMs) return { value, ageMs }
      // Never asked before: what this instance holds is all that it knows, and the age of the rest is unknown.
      if (value === undefined && maxAgeMs === Infinity && this.#hub.has(group)) return { value: here(), ageMs: Infinity }
      throw error
    }
  }
}

function sizeOf (messages: readonly LoggedEnvelope[]): number {
  return messages.reduce((sum, { payload }) => sum + payload.length, 0)
}

interface Reading<Value> { readonly value: Value, readonly ageMs: number }
