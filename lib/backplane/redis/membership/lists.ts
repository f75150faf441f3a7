import type { Member } from '../../../types.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { isForbidden } from '../link/reply-errors.ts'
import { decodeMember } from './records.ts'

/** The assumed size of a member in an answer, before any was seen (bytes). */
const usualMemberBytes = 100
const minPerPage = 10

interface Reads { readonly running: Promise<Member[]>, next: Promise<Member[]> | undefined }

/** Reads the members of a group: in pages, because a list may be of any length, and once for all who ask at the same time. */
export class MemberLists {
  readonly #link: Link
  readonly #keys: Keys
  readonly #reads = new Map<string, Reads>()
  /** The size of a member in the latest page (bytes). */
  #memberBytes = usualMemberBytes

  constructor (link: Link, keys: Keys) {
    this.#link = link
    this.#keys = keys
  }

  /** @throws {WebsocketGroupsError} as `Link.run` */
  async read (group: string): Promise<Member[]> {
    const reads = this.#reads.get(group)
    if (reads === undefined) return [...await this.#begin(group)]
    // The caller may know of a member that joined after the read began.
    const again = async (): Promise<Member[]> => await this.#begin(group)
    reads.next ??= reads.running.then(again, again)
    return [...await reads.next]
  }

  #begin (group: string): Promise<Member[]> {
    const running = this.#readAll(group).finally(() => {
      if (this.#reads.get(group)?.running === running) this.#reads.delete(group)
    })
    this.#reads.set(group, { running, next: undefined })
    return running
  }

  async #readAll (group: string): Promise<Member[]> {
    const fields = await this.#link.run(async redis => await redis.hkeys(this.#keys.counts(group)))
    const lists = await Promise.all(fields.filter(field => field !== '#').map(async instanceId => await this.#readList(group, instanceId)))
    return lists.flat()
  }

  async #readList (group: string, instanceId: string): Promise<Member[]> {
    const key = this.#keys.members(group, instanceId)
    // By id, because pages may overlap.
    const members = new Map<string, Member>()
    for (let cursor = '0'; ;) {
      const [next, records] = await this.#readPage(key, cursor)
      for (let at = 0; at + 1 < records.length; at += 2) {
        const [connectionId = '', record = ''] = records.slice(at, at + 2)
        members.set(connectionId, decodeMember(connectionId, instanceId, record))
      }
      if (next === '0') return [...members.values()]
      cursor = next
    }
  }

  async #readPage (key: string, cursor: string): Promise<[next: string, records: string[]]> {
    const { bulk } = this.#link
    try {
      return await bulk.read(async bytes => {
        const count = Math.max(minPerPage, Math.floor(bytes / this.#memberBytes))
        return await this.#link.runBulk(async redis => await redis.hscan(key, cursor, 'COUNT', count))
      }, ([next, records]) => {
        const bytes = bytesOf(records)
        if (records.length > 0) this.#memberBytes = Math.max(1, 2 * bytes / records.length)
        return { bytes, full: next !== '0' }
      })
    } catch (error) {
      if (!isForbidden(error)) throw error
      // Without the right to read in pages: reads everything at once, with nothing else under way.
      return await bulk.read(async () => {
        const records = await this.#link.runBulk(async redis => await redis.hgetall(key))
        return ['0', Object.entries(records).flat()] as [string, string[]]
      }, ([, records]) => ({ bytes: bytesOf(records), full: false }), true)
    }
  }
}

function bytesOf (texts: readonly string[]): number {
  return texts.reduce((sum, { length }) => sum + length, 0)
}
