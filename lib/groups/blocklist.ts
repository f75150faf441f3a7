import { maxBlocks, type Backplane } from '../backplane/backplane.ts'
import { BoundedMap } from '../bounded-map.ts'
import type { LocalConnection } from '../connection/connection.ts'
import { hasCode, WebsocketGroupsError } from '../errors.ts'
import { isUserId } from '../group-name.ts'
import type { Metrics } from '../metrics.ts'
import { CloseCode } from '../protocol/close-codes.ts'
import type { BlockTarget, Identity } from '../types.ts'

const maxBlockMs = 2_592_000_000
const reason = 'access was revoked'

/** How identities are told apart. */
export interface IdentityNames {
  userId (identity: Identity | null): string | undefined
  tokenId (identity: Identity): string | undefined
}

/**
 * The users and tokens that are kept out for a while. Every instance has the whole list, so that no upgrade has to wait for an answer; the
 * backplane keeps it for instances that start later, and for those that missed a change.
 */
export class Blocklist {
  readonly #connections: () => Iterable<LocalConnection>
  readonly #backplane: Pick<Backplane, 'block' | 'blocks'>
  readonly #names: IdentityNames
  readonly #metrics: Metrics
  readonly #now: () => number
  /** When each block ends (on the clock of `now`). */
  readonly #ends = new BoundedMap<string, number>({ maxWeight: 2 * maxBlocks })

  constructor (connections: () => Iterable<LocalConnection>, backplane: Pick<Backplane, 'block' | 'blocks'>, names: IdentityNames, metrics: Metrics, now: () => number = () => performance.now()) {
    this.#connections = connections
    this.#backplane = backplane
    this.#names = names
    this.#metrics = metrics
    this.#now = now
  }

  get size (): number {
    return this.#ends.size
  }

  /** Whether the identity is kept out now. */
  covers (identity: Identity): boolean {
    if (this.#ends.size === 0) return false
    const userId = this.#names.userId(identity)
    if (userId !== undefined && this.#isBlocked(`u:${userId}`)) return true
    const tokenId = this.#names.tokenId(identity)
    return tokenId !== undefined && this.#isBlocked(`t:${tokenId}`)
  }

  /**
   * Stores a block, or with 0 its end. What happens to connections is `apply`.
   * @throws {WebsocketGroupsError} WSG_BLOCKLIST_FULL, WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  async store (name: string, forMs: number): Promise<void> {
    if (!await this.#backplane.block(name, forMs)) throw new WebsocketGroupsError('WSG_BLOCKLIST_FULL')
  }

  /** An instance, maybe this one, blocked a name. Returns how many connections of this instance were closed. */
  apply (name: string, forMs: number): number {
    this.#ends.delete(name)
    if (forMs <= 0) return 0
    this.#ends.set(name, this.#now() + forMs)
    return this.#closeCovered()
  }

  /** Takes over what the backplane has: at boot, and after an outage. Never rejects; while the backplane is out the list stays as it is. */
  async load (): Promise<void> {
    try {
      const blocks = await this.#backplane.blocks()
      const now = this.#now()
      this.#ends.clear()
      for (const { name, leftMs } of blocks) this.#ends.set(name, now + leftMs)
      this.#closeCovered()
    } catch (error) {
      if (!hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT', 'WSG_CLOSED')) throw error
    }
  }

  #isBlocked (name: string): boolean {
    const end = this.#ends.get(name)
    if (end === undefined) return false
    if (end > this.#now()) return true
    this.#ends.delete(name)
    return false
  }

  #closeCovered (): number {
    let closed = 0
    if (this.#ends.size === 0) return closed
    for (const connection of this.#connections()) {
      const { identity } = connection
      if (identity === null || connection.closed || !this.covers(identity)) continue
      connection.closeForFault(CloseCode.OtherUser, reason)
      closed++
    }
    this.#metrics.connectionsBlocked += closed
    return closed
  }
}

/**
 * The name of what is blocked, for the list.
 * @throws {WebsocketGroupsError} WSG_BLOCK_INVALID
 */
export function blockName (target: BlockTarget): string {
  const { userId, tokenId } = target as { userId?: unknown, tokenId?: unknown }
  const id = userId ?? tokenId
  if ((userId !== undefined && tokenId !== undefined) || !isUserId(id)) throw new WebsocketGroupsError('WSG_BLOCK_INVALID', 'give either a userId or a tokenId')
  return `${userId === undefined ? 't' : 'u'}:${id}`
}

/** @throws {WebsocketGroupsError} WSG_BLOCK_INVALID */
export function assertBlockMs (forMs: unknown): asserts forMs is number {
  if (!Number.isInteger(forMs) || (forMs as number) < 1 || (forMs as number) > maxBlockMs) {
    throw new WebsocketGroupsError('WSG_BLOCK_INVALID', `forMs is ${String(forMs)}`)
  }
}
