import { hasCode, WebsocketGroupsError } from '../../errors.ts'
import type { Keys } from './keys.ts'
import type { Link } from './link/port.ts'
import { luaInteger, Script } from './link/script.ts'
import { mending } from './link/mending.ts'

/** As long as memberships that nobody renews are kept (`safetyTtlMs`): the claim has to outlive them. */
const ttlMs = 86_400_000
const renewMs = 3_600_000
const retryMs = 1_000
const schema = 1

/**
 * Records how the keys are divided, unless that is recorded already.
 * KEYS 1 the claim.  ARGV 1 how this process divides the keys  2 TTL (ms)
 * Returns the claim that counts.
 */
export const claimNames = new Script(`${luaInteger}
local ttl, claimed = integer(2, 1), redis.call('GET', KEYS[1])
if not claimed then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ttl)
  return ARGV[1]
end
-- Not by SET, which a full Redis refuses.
if claimed == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ttl) end
return claimed
`)

/**
 * Claims, or renews the claim, that the keys are divided as this process does it: all processes must find a group in the same partition.
 * `keys`: the keys under the common tag.
 * @throws {WebsocketGroupsError} WSG_REDIS_UNSUPPORTED when others divide the keys in another way, and as `Link.run`
 */
export async function claim (link: Link, keys: Keys, partitions: number): Promise<void> {
  const mine = `schema ${schema}, ${partitions} ${partitions === 1 ? 'partition' : 'partitions'}`
  const claimed = String(await mending(link, () => [[keys.names, 'STRLEN']], async () => (
    await link.script(claimNames, [keys.names], [mine, ttlMs])
  )))
  if (claimed === mine) return
  const detail = `other processes divide the keys '${keys.prefix}*' in another way (${claimed}, this process: ${mine}); ` +
    'stop them first, or give this process another keyPrefix'
  throw new WebsocketGroupsError('WSG_REDIS_UNSUPPORTED', detail)
}

/** The claim of an instance: made as soon as the link works, tried again until that succeeds, and renewed every hour. */
export class NamesClaim {
  readonly #link: Link
  readonly #keys: Keys
  readonly #partitions: number
  readonly #settled: (failure?: Error) => void
  readonly #renewTimer: NodeJS.Timeout
  #retryTimer: NodeJS.Timeout | undefined
  #making: Promise<void> | undefined
  #made = false
  #refusal: Error | undefined
  #closed = false

  /** `settled` is called after each try, with the error if it failed. */
  constructor (link: Link, keys: Keys, partitions: number, settled: (failure?: Error) => void) {
    this.#link = link
    this.#keys = keys
    this.#partitions = partitions
    this.#settled = settled
    this.#renewTimer = setInterval(() => { void this.renew() }, renewMs).unref()
  }

  /** Whether all processes are known to divide the keys as this one does. */
  get made (): boolean {
    return this.#made
  }

  /** The error when other processes divide the keys in another way; `undefined` when no such process is known. */
  get refusal (): Error | undefined {
    return this.#refusal
  }

  /** Resolves when the claim is made, or could not be made for now. Never rejects. */
  async make (): Promise<void> {
    if (!this.#made && this.#link.up && this.#retryTimer === undefined) await this.renew()
  }

  /** Makes or renews the claim: a server that came back may have lost it. Never rejects. */
  async renew (): Promise<void> {
    this.#making ??= this.#claim().finally(() => { this.#making = undefined })
    await this.#making
  }

  close (): void {
    this.#closed = true
    clearInterval(this.#renewTimer)
    clearTimeout(this.#retryTimer)
  }

  async #claim (): Promise<void> {
    let failure: Error | undefined
    try {
      await claim(this.#link, this.#keys, this.#partitions)
      this.#made = true
      this.#refusal = undefined
    } catch (error) {
      failure = error as Error
      if (hasCode(failure, 'WSG_REDIS_UNSUPPORTED')) this.#refusal = failure
    }
    if (this.#closed) return
    this.#settled(failure)
    if (failure !== undefined) this.#retryLater()
  }

  #retryLater (): void {
    clearTimeout(this.#retryTimer)
    this.#retryTimer = setTimeout(() => {
      this.#retryTimer = undefined
      // While the link is down nothing can be claimed: its return leads to the next try.
      if (this.#link.up) void this.renew()
    }, retryMs).unref()
  }
}
