import { maxBlocks, type Block } from '../../backplane.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { luaInteger, luaNow, luaPermitted, Script } from '../link/script.ts'
import { mending } from '../link/mending.ts'

/*
 * The list has a mark: an entry with an empty name that outlasts all blocks, and that unblocking never removes. So where the mark is
 * missing, Redis lost the list, or all its blocks have ended.
 */

/** The score of the mark is the time when the list was made and this (milliseconds): later than any block ends. */
const markMs = '1000000000000000'

/**
 * Adds a name to the list of blocks, or removes it. The key expires with its last entry.
 * KEYS 1 list.  ARGV 1 name  2 milliseconds, 0 to remove it  3 how many names at most
 * Returns 0 when the list is full, else 1.
 */
export const setBlock = new Script(`${luaInteger}
local list, name, forMs, most = KEYS[1], ARGV[1], integer(2, 0), integer(3, 1)${luaNow}
${luaPermitted("'PEXPIRE', list, 1")}
local left, mark = redis.call('PTTL', list), redis.call('ZSCORE', list, '')
-- Begins with a write that needs no memory: a full Redis may refuse the first write of a script, but none after it.
redis.call('ZREMRANGEBYSCORE', list, '-inf', now)
if forMs == 0 then
  redis.call('ZREM', list, name)
  return 1
end
if redis.call('ZCARD', list) > most and not redis.call('ZSCORE', list, name) then return 0 end
redis.call('ZADD', list, now + forMs, name, mark or now + ${markMs}, '')
if left < forMs then redis.call('PEXPIRE', list, forMs) end
return 1
`)

/**
 * Reads the list.
 * KEYS 1 list.  ARGV 1 how many names at most, with the empty one
 * Returns each name and the milliseconds that are left.
 */
const readBlocks = new Script(`${luaNow}
local list = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[1])
for i = 2, #list, 2 do list[i] = tonumber(list[i]) - now end
return list
`)

/** The users and tokens that all instances block. */
export class BlockStore {
  readonly #link: Link
  readonly #keys: Keys

  constructor (link: Link, keys: Keys) {
    this.#link = link
    this.#keys = keys
  }

  /** As `Backplane.block`. */
  async set (name: string, forMs: number): Promise<boolean> {
    return await this.#call(setBlock, [name, forMs, maxBlocks]) === 1
  }

  /** As `Backplane.blocks`. */
  async list (): Promise<Block[] | undefined> {
    const list = await this.#call(readBlocks, [maxBlocks + 1]) as Array<string | number>
    const entry = (index: number): Block => ({ name: String(list[2 * index]), leftMs: Number(list[2 * index + 1]) })
    const blocks = Array.from({ length: list.length / 2 }, (_, index) => entry(index))
    return blocks.some(({ name }) => name === '') ? blocks.filter(({ name }) => name !== '') : undefined
  }

  async #call (script: Script, args: ReadonlyArray<string | number>): Promise<unknown> {
    const { blocks } = this.#keys
    return await mending(this.#link, () => [[blocks, 'ZCARD']], async () => await this.#link.script(script, [blocks], args))
  }
}
