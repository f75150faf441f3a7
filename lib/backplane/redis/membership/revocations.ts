import type { Revocation } from '../../backplane.ts'
import { formatPosition, parsePosition } from '../../position.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { luaInteger, luaNow, luaPermitted, Script } from '../link/script.ts'
import { hashes, mending } from '../link/mending.ts'

/** How many names are remembered of each group. */
const maxNames = 1_000
/** About how many names one call asks for at most. */
const maxAsked = 1_000
/** The field of all who are no longer remembered one by one, with the latest of their revocations. No name equals it. */
const others = '*'

/**
 * Remembers that the holders of some names were put out of a group, unless a later revocation of them is known: an instance that was cut
 * off tells late. When there are too many names, the older half is remembered together.
 * KEYS 1 hash of the group
 * ARGV 1 TTL (ms)  2 how many names at most  3 field of all others  4 `[<at>][ <position>]`, now if there is no `<at>`, then names
 * Returns how many names are no longer remembered one by one.
 */
export const revoke = new Script(`${luaInteger}
if #ARGV < 5 then error('expected 5 arguments or more, got ' .. #ARGV) end
local ttl, most = integer(1, 1), integer(2, 1)
local key, entry = KEYS[1], ARGV[4]
if not string.match(entry, '^%d') then${luaNow}
  entry = string.format('%.0f', now) .. entry
end
local function at (text) return tonumber(string.match(text or '', '^%d+')) or 0 end
local function keep (name, text)
  if at(redis.call('HGET', key, name)) <= at(text) then redis.call('HSET', key, name, text) end
end
${luaPermitted("'HSET', key, '', ''", "'PEXPIRE', key, 1", "'HGETALL', key")}
local left, known = redis.call('PTTL', key), redis.call('HLEN', key)
-- Begins with a write that needs no memory: a full Redis may refuse the first write of a script, but none after it.
redis.call('HDEL', key, '')
for i = 5, #ARGV do keep(ARGV[i], entry) end
if left < ttl then redis.call('PEXPIRE', key, ttl) end
if known + #ARGV - 4 <= most or redis.call('HLEN', key) <= most then return 0 end
local fields, entries = redis.call('HGETALL', key), {}
for i = 1, #fields, 2 do
  if fields[i] ~= ARGV[3] then entries[#entries + 1] = {fields[i], fields[i + 1], at(fields[i + 1])} end
end
table.sort(entries, function (a, b) return a[3] < b[3] end)
local older = math.floor(#entries / 2)
for i = 1, older do redis.call('HDEL', key, entries[i][1]) end
keep(ARGV[3], entries[older][2])
return older
`)

/** Calls that wait for one read of a group. */
interface Read {
  readonly names: Set<string>
  readonly entries: Promise<ReadonlyMap<string, Revocation>>
}

/** Stores who was put out of groups. All who ask about one group while a call about it is under way share the next call. */
export class RevocationStore {
  readonly #link: Link
  readonly #keys: Keys
  /** Reads that have not begun, and those under way, by group. */
  readonly #next = new Map<string, Read>()
  readonly #running = new Map<string, Promise<unknown>>()

  constructor (link: Link, keys: Keys) {
    this.#link = link
    this.#keys = keys
  }

  /** As `Backplane.revoke`; without `at`, the time is now by the clock of Redis. */
  async set (group: string, names: readonly string[], { at, position }: Partial<Revocation>, forMs: number): Promise<void> {
    const value = (at === undefined ? '' : String(at)) + (position === undefined ? '' : ` ${formatPosition(position)}`)
    const key = this.#keys.revocations(group)
    await mending(this.#link, () => hashes([key]), async () => {
      await this.#link.script(revoke, [key], [forMs, maxNames, others, value, ...names])
    })
  }

  /** As `Backplane.revoked`. */
  async latest (group: string, names: readonly string[]): Promise<Revocation | undefined> {
    let read = this.#next.get(group)
    if (read === undefined || read.names.size > maxAsked) {
      const asked = new Set<string>([others])
      this.#next.set(group, read = { names: asked, entries: this.#readSoon(group, asked) })
    }
    for (const name of names) read.names.add(name)
    const entries = await read.entries
    const found = [others, ...names].map(name => entries.get(name)).filter(entry => entry !== undefined)
    return found.sort((a, b) => b.at - a.at)[0]
  }

  /**
   * Reads all names that are asked for until the read begins. That is after the call under way, which may have missed that somebody was put
   * out.
   */
  async #readSoon (group: string, asked: ReadonlySet<string>): Promise<ReadonlyMap<string, Revocation>> {
    await this.#running.get(group)
    if (this.#next.get(group)?.names === asked) this.#next.delete(group)
    const call = this.#read(group, [...asked])
    const ended = call.catch(() => {}).finally(() => { if (this.#running.get(group) === ended) this.#running.delete(group) })
    this.#running.set(group, ended)
    return await call
  }

  async #read (group: string, names: readonly string[]): Promise<ReadonlyMap<string, Revocation>> {
    const key = this.#keys.revocations(group)
    const values = await mending(this.#link, () => hashes([key]), async () => (
      await this.#link.run(async redis => await redis.hmget(key, ...names))
    ))
    const entries = new Map<string, Revocation>()
    for (const [index, name] of names.entries()) {
      const [at, position] = values[index]?.split(' ') ?? []
      if (at !== undefined) entries.set(name, { at: Number(at), position: parsePosition(position) })
    }
    return entries
  }
}
