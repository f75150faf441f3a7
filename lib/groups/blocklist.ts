import { maxBlocks, type Backplane, type Block } from '../backplane/backplane.ts'
import { BoundedMap } from '../bounded-map.ts'
import type { LocalConnection } from '../connection/connection.ts'
import { isOutageOrClosed, WebsocketGroupsError } from '../errors.ts'
import { isUserId } from '../group-name.ts'
import { readIdentity, readTokenId } from '../options/identity.ts'
import type { ResolvedOptions } from '../options/resolve.ts'
import { property, show } from '../options/rules.ts'
import type { Metrics } from '../metrics.ts'
import { CloseCode } from '../protocol/close-codes.ts'
import type { BlockOptions, BlockTarget, Identity } from '../types.ts'

type NameOptions = Required<Pick<ResolvedOptions, 'userId' | 'expiresAt' | 'tokenId'>>

const maxBlockMs = 2_592_000_000
/** How many blocks an instance remembers: more than the backplane stores, as some hold here alone while the backplane is out. */
const mostRemembered = 2 * maxBlocks
/** How long after a load that failed the next one follows (milliseconds). */
const retryMs = 2_000
export const blockedReason = 'access was revoked'

/**
 * The users and tokens that are blocked for a while. Every instance holds the whole list, so that no upgrade waits for the backplane, which
 * stores the list for instances that start later or missed a change.
 */
export class Blocklist {
  readonly #connections: () => Iterable<LocalConnection>
  readonly #backplane: Pick<Backplane, 'block' | 'blocks'>
  readonly #options: NameOptions
  readonly #metrics: Metrics
  readonly #failed: (error: unknown) => void
  readonly #now: () => number
  /** When each block ends, on the clock of `now`. */
  readonly #ends = new BoundedMap<string, number>({ maxWeight: mostRemembered })
  /** For each load under way the names that changed meanwhile: the list that it gets may be older. */
  readonly #loads = new Set<Set<string>>()
  #retry: NodeJS.Timeout | undefined
  #closed = false

  /** `failed` is called with errors of the backplane other than an outage. */
  constructor (
    connections: () => Iterable<LocalConnection>, backplane: Pick<Backplane, 'block' | 'blocks'>, options: NameOptions, metrics: Metrics,
    failed: (error: unknown) => void, now: () => number = () => performance.now()
  ) {
    this.#connections = connections
    this.#backplane = backplane
    this.#options = options
    this.#metrics = metrics
    this.#failed = failed
    this.#now = now
  }

  get size (): number {
    this.#sweep()
    return this.#ends.size
  }

  /** The blocks that last. */
  held (): Block[] {
    this.#sweep()
    const now = this.#now()
    return Array.from(this.#ends, ([name, end]) => ({ name, leftMs: Math.ceil(end - now) }))
  }

  /**
   * Whether the identity is blocked now.
   * @throws {WebsocketGroupsError} WSG_IDENTITY_INVALID
   */
  covers (identity: Identity): boolean {
    const { userId } = readIdentity(identity, this.#options)
    const tokenId = readTokenId(identity, this.#options)
    if (this.#ends.size === 0) return false
    if (userId !== undefined && this.#isBlocked(`u:${userId}`)) return true
    return tokenId !== undefined && this.#isBlocked(`t:${tokenId}`)
  }

  /**
   * Stores a block, or removes it if `forMs` is 0. `apply` closes the connections.
   * @throws {WebsocketGroupsError} WSG_BLOCKLIST_FULL, WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  async store (name: string, forMs: number): Promise<void> {
    if (await this.#backplane.block(name, forMs)) return
    // Nobody else knows of this block, so it must not hold here either.
    this.apply(name, 0)
    throw new WebsocketGroupsError('WSG_BLOCKLIST_FULL')
  }

  /** An instance, maybe this one, blocked a name. Returns how many connections were closed here. */
  apply (name: string, forMs: number): number {
    for (const changed of this.#loads) changed.add(name)
    this.#ends.delete(name)
    if (forMs <= 0) return 0
    // Blocks that are over must not push out those that last.
    if (this.#ends.size >= mostRemembered) this.#sweep()
    this.#ends.set(name, this.#now() + forMs)
    return this.#closeCovered()
  }

  /**
   * Loads the list from the backplane, at boot and after an outage, and stores again the blocks that the backplane lost. While the
   * backplane is out, the list stays as it is, and the load is repeated.
   */
  async load (): Promise<void> {
    const changed = new Set<string>()
    this.#loads.add(changed)
    try {
      const blocks = await this.#backplane.blocks()
      if (blocks === undefined) return await this.#putBack()
      this.#replace(blocks, changed)
      this.#closeCovered()
    } catch (error) {
      if (!isOutageOrClosed(error)) throw error
      this.#loadLater()
    } finally {
      this.#loads.delete(changed)
    }
  }

  /** As `load`, where nobody waits for the result: never rejects. A load that failed for whatever reason is repeated. */
  async reload (): Promise<void> {
    try {
      await this.load()
    } catch (error) {
      this.#failed(error)
      this.#loadLater()
    }
  }

  close (): void {
    this.#closed = true
    clearTimeout(this.#retry)
  }

  /** A call may fail while the backplane stays up: then no outage ends, which would lead to another load. */
  #loadLater (): void {
    if (this.#closed) return
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined
      void this.reload()
    }, retryMs).unref()
  }

  /** Takes over a list, except for the names in `changed`. */
  #replace (blocks: readonly Block[], changed: ReadonlySet<string>): void {
    const now = this.#now()
    const newer = [...this.#ends].filter(([name]) => changed.has(name))
    this.#ends.clear()
    for (const { name, leftMs } of blocks) if (!changed.has(name)) this.#ends.set(name, now + leftMs)
    for (const [name, end] of newer) this.#ends.set(name, end)
  }

  /** All instances put back the same blocks with the same ends, so it does not matter which of them is last. */
  async #putBack (): Promise<void> {
    await Promise.all(this.held().map(async ({ name, leftMs }) => await this.#backplane.block(name, leftMs)))
  }

  /** Forgets the blocks that are over. */
  #sweep (): void {
    const now = this.#now()
    for (const [name, end] of this.#ends) if (end <= now) this.#ends.delete(name)
  }

  #isBlocked (name: string): boolean {
    const end = this.#ends.get(name)
    if (end === undefined) return false
    if (end > this.#now()) return true
    this.#ends.delete(name)
    return false
  }

  /** If the option `userId` or `tokenId` throws now, nobody knows whether the identity is blocked: close its connection. */
  #mustGo (identity: Identity): boolean {
    try {
      return this.covers(identity)
    } catch {
      return true
    }
  }

  #closeCovered (): number {
    let closed = 0
    if (this.#ends.size === 0) return closed
    for (const connection of this.#connections()) {
      const { identity } = connection
      if (identity === null || connection.closed || !this.#mustGo(identity)) continue
      connection.closeForFault(CloseCode.OtherUser, blockedReason)
      closed++
    }
    this.#metrics.connectionsBlocked += closed
    return closed
  }
}

/**
 * Returns the name under which the list has what is blocked.
 * @throws {WebsocketGroupsError} WSG_BLOCK_INVALID
 */
export function blockName (target: BlockTarget): string {
  const [userId, tokenId] = [property(target, 'userId'), property(target, 'tokenId')]
  const id = userId ?? tokenId
  if ((userId !== undefined && tokenId !== undefined) || !isUserId(id)) {
    throw new WebsocketGroupsError('WSG_BLOCK_INVALID', 'give either a userId or a tokenId')
  }
  return `${userId === undefined ? 't' : 'u'}:${id}`
}

/** Returns the user that a name of `blockName` stands for. */
export function userOfBlock (name: string): string | undefined {
  return name.startsWith('u:') ? name.slice(2) : undefined
}

/** For how long a block lasts. @throws {WebsocketGroupsError} WSG_BLOCK_INVALID */
export function blockMs (options: BlockOptions): number {
  const forMs = property(options, 'forMs')
  if (!Number.isInteger(forMs) || (forMs as number) < 1 || (forMs as number) > maxBlockMs) {
    throw new WebsocketGroupsError('WSG_BLOCK_INVALID', `forMs is ${show(forMs)}`)
  }
  return forMs as number
}
