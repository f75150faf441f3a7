import { maxBlocks, type Block, type LocalInstance } from '../../backplane.ts'
import { chunks } from '../batching.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import type { Lease } from './lease.ts'
import { luaInteger, luaNow, luaPermitted, Script } from '../link/script.ts'
import { mending } from '../link/mending.ts'

/** How many blocks one call puts back: a call of the script holds up everything else in Redis. */
const blocksPerCall = 500

/*
 * The list has a mark: an entry with an empty name that outlasts all blocks, and that unblocking never removes. So where the mark is
 * missing, Redis lost the list, or all its blocks have ended. Each list has a mark of its own: where an instance finds another one than
 * before, Redis lost the list, and somebody began the next. The mark changes once more when an instance puts a block back, so that those
 * that read the list before read it again.
 */

/** The score of the mark is the time when the list was made and this (milliseconds): later than any block ends. */
const markMs = '1000000000000000'

/**
 * Adds a name to the list of blocks, or removes it. The key expires with its last entry.
 * KEYS 1 list.  ARGV 1 name  2 milliseconds, 0 to remove it  3 how many names at most
 * Returns 0 when the list is full, 2 when it is a new one, else 1.
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
return mark and 1 or 2
`)

/**
 * Puts blocks back into the list that lacks them.
 * KEYS 1 list.  ARGV 1 how many names at most, then of each block: name, milliseconds that are left
 */
export const restoreBlocks = new Script(`${luaInteger}
if #ARGV % 2 ~= 1 then error('expected name and milliseconds of each block') end
local list, most, longest, added = KEYS[1], integer(1, 1), 0, 0
for i = 3, #ARGV, 2 do longest = math.max(longest, integer(i, 1)) end${luaNow}
${luaPermitted("'ZADD', list, 1, ''", "'ZCARD', list", "'PEXPIRE', list, 1")}
local left, mark = redis.call('PTTL', list), redis.call('ZSCORE', list, '')
-- As in setBlock.
redis.call('ZREMRANGEBYSCORE', list, '-inf', now)
redis.call('ZADD', list, 'NX', now + ${markMs}, '')
for i = 2, #ARGV, 2 do
  if redis.call('ZCARD', list) <= most then added = added + redis.call('ZADD', list, 'NX', now + ARGV[i + 1], ARGV[i]) end
end
if mark and added > 0 then redis.call('ZADD', list, math.max(mark + 1, now + ${markMs}), '') end
if left < longest then redis.call('PEXPIRE', list, longest) end
`)

/**
 * Reads the list.
 * KEYS 1 list.  ARGV 1 how many names at most
 * Returns the mark, and each name and the milliseconds that are left; nothing without a mark.
 */
const readBlocks = new Script(`${luaNow}
local mark = redis.call('ZSCORE', KEYS[1], '')
if not mark then return {} end
local list = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '(${markMs}', 'WITHSCORES', 'LIMIT', 0, ARGV[1])
for i = 2, #list, 2 do list[i] = tonumber(list[i]) - now end
return {mark, list}
`)

/** Empty where there is no list. */
type Reply = readonly [mark?: string, entries?: ReadonlyArray<string | number>]

type BlockHolder = Pick<LocalInstance, 'blocks' | 'blocksLost' | 'log'>

/** The users and tokens that all instances block. What Redis lost by itself (the key was evicted or deleted) is found beside a beat. */
export class BlockStore {
  readonly #link: Link
  readonly #keys: Keys
  readonly #local: BlockHolder | undefined
  /** Whether the list was used: on a cluster one partition alone has it. */
  #used = false
  /** The mark of the list that was read last; `undefined` where there was none. */
  #mark: string | undefined

  /** Without the last two, blocks are only written. */
  constructor (link: Link, keys: Keys, local?: BlockHolder, lease?: Pick<Lease, 'on'>) {
    this.#link = link
    this.#keys = keys
    this.#local = local
    lease?.on({ beating: () => { void this.#look() } })
  }

  /** As `Backplane.block`. */
  async set (name: string, forMs: number): Promise<boolean> {
    this.#used = true
    const done = await this.#script(setBlock, [name, forMs, maxBlocks])
    // There was a list, which this instance may not have read.
    if (done === 2 && this.#held().some(held => held.name !== name)) {
      this.#mark ??= ''
      this.#local?.blocksLost?.()
    }
    return done !== 0
  }

  /** As `Backplane.blocks`. Puts back first what is blocked here and was in a list that Redis lost. */
  async list (): Promise<Block[] | undefined> {
    this.#used = true
    let [mark, entries = []] = await this.#read()
    const lost = this.#isLost(mark) ? this.#held() : []
    for (const some of chunks(lost, blocksPerCall)) {
      await this.#script(restoreBlocks, [maxBlocks, ...some.flatMap(({ name, leftMs }) => [name, leftMs])])
    }
    if (lost.length > 0) [mark, entries = []] = await this.#read()
    this.#mark = mark
    if (mark === undefined) return undefined
    return Array.from({ length: entries.length / 2 }, (_, at) => ({ name: String(entries[2 * at]), leftMs: Number(entries[2 * at + 1]) }))
  }

  /** Looks beside a beat whether the list is the one that was read. Never rejects: a later look finds what this one misses. */
  async #look (): Promise<void> {
    if (!this.#used) return
    try {
      const read = async (): Promise<string | null> => await this.#link.run(async redis => await redis.zscore(this.#keys.blocks, ''))
      const mark = await this.#mending(read) ?? undefined
      if (mark !== this.#mark || (this.#isLost(mark) && this.#held().length > 0)) this.#local?.blocksLost?.()
    } catch (error) {
      this.#local?.log.debug({ err: error }, 'the list of blocks could not be compared with what is stored')
    }
  }

  #isLost (mark: string | undefined): boolean {
    return mark === undefined || (this.#mark !== undefined && mark !== this.#mark)
  }

  #held (): Block[] {
    return [...this.#local?.blocks?.() ?? []]
  }

  async #read (): Promise<Reply> {
    return await this.#script(readBlocks, [maxBlocks]) as Reply
  }

  async #script (script: Script, args: ReadonlyArray<string | number>): Promise<unknown> {
    return await this.#mending(async () => await this.#link.script(script, [this.#keys.blocks], args))
  }

  async #mending<Answer> (call: () => Promise<Answer>): Promise<Answer> {
    return await mending(this.#link, () => [[this.#keys.blocks, 'ZCARD']], call)
  }
}
