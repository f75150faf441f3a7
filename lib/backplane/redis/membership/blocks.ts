import { maxBlocks, type Block } from '../../backplane.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { luaInteger, luaNow, Script } from '../link/script.ts'
import { mending } from '../link/mending.ts'

/*
 * The list has an entry with an empty name, which ends with the latest of all blocks that were ever in the list. So where that entry is
 * missing, Redis lost the list, or all its blocks have ended; unblocking never removes the entry.
 */

/**
 * Adds a name to the list of blocks, or removes it. The key expires with its last entry.
 * KEYS 1 list.  ARGV 1 name  2 milliseconds, 0 to remove it  3 how many names at most
 * Returns 1, or 0 when the list is full.
 */
export const setBlock = new Script(`${luaInteger}
local forMs, most = integer(2, 0), integer(3, 1)${luaNow}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if forMs == 0 then redis.call('ZREM', KEYS[1], ARGV[1])
elseif redis.call('ZCARD', KEYS[1]) > most and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0
else
  local ends = now + forMs
  redis.call('ZADD', KEYS[1], ends, ARGV[1])
  if ends > tonumber(redis.call('ZSCORE', KEYS[1], '') or 0) then redis.call('ZADD', KEYS[1], ends, '') end
end
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if last[2] then redis.call('PEXPIREAT', KEYS[1], last[2]) end
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
