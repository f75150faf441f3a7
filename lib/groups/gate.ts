import type { Backplane } from '../backplane/backplane.ts'
import { isOutage, type ErrorCode } from '../errors.ts'
import { Admissions, type Admission } from '../connection/admissions.ts'
import type { Limit, Metrics } from '../metrics.ts'
import { readIdentity } from '../options/identity.ts'
import type { ResolvedLimits } from '../options/limits.ts'
import type { ResolvedOptions } from '../options/resolve.ts'
import { maxRetryAfterSeconds, RateTable, TokenBucket } from '../connection/inbound/rate.ts'
import type { Identity } from '../types.ts'
import type { Occupancy } from './occupancy.ts'
import type { Blocklist } from './blocklist.ts'

/**
 * How many addresses have their upgrades counted, in about 2 MB. Beyond that, the addresses that were quiet the longest are forgotten and
 * start from zero.
 */
const maxAddresses = 20_000
/** `Retry-After` when a limit of connections refuses an upgrade: there is room again when others leave (seconds). */
const fullRetrySeconds = 10

/** Why an upgrade is refused. */
export interface Refusal {
  readonly limit: Limit
  readonly code: ErrorCode
  readonly detail: string
  /** Left out where another try would not help. */
  readonly retryAfterSeconds?: number | undefined
}

/** An address as the limits see it: the key that counts, and whether it is a private address rather than one of the Internet. */
export interface ClientAddress {
  readonly key: string
  readonly isPrivate: boolean
}

type GateOptions = Pick<ResolvedOptions, 'limits' | 'upgradeLimit' | 'userId' | 'expiresAt'>

/** Decides which upgrades become connections: how many connections an address, a user and this instance may have, and who is blocked. */
export class Gate {
  readonly #limits: ResolvedLimits
  readonly #backplane: Pick<Backplane, 'syncUser'>
  readonly #blocks: Pick<Blocklist, 'covers'>
  readonly #options: GateOptions
  readonly #metrics: Metrics
  readonly #occupancy: Pick<Occupancy, 'changed'>
  readonly #admissions = new Admissions()
  readonly #addressRates: RateTable | undefined
  readonly #bucket: TokenBucket | undefined

  constructor (
    options: GateOptions, backplane: Pick<Backplane, 'syncUser'>, blocks: Pick<Blocklist, 'covers'>, occupancy: Pick<Occupancy, 'changed'>,
    metrics: Metrics
  ) {
    const { limits, upgradeLimit } = this.#options = options
    this.#limits = limits
    this.#backplane = backplane
    this.#blocks = blocks
    this.#metrics = metrics
    this.#occupancy = occupancy
    this.#addressRates = limits.upgradesPerAddress === undefined ? undefined : new RateTable(limits.upgradesPerAddress, maxAddresses)
    this.#bucket = upgradeLimit === false ? undefined : new TokenBucket(upgradeLimit)
  }

  /**
   * Judges an upgrade before its token is checked. The upgrade does not count as a connection yet, so a bad token takes nobody's place.
   */
  precheck (address: ClientAddress | undefined): Refusal | undefined {
    if (address !== undefined && this.#addressRates !== undefined && this.#limited('upgradesPerAddress', address)) {
      const waitMs = this.#addressRates.take(address.key)
      if (waitMs > 0) {
        const retryAfterSeconds = Math.min(Math.ceil(waitMs / 1_000), maxRetryAfterSeconds)
        return { limit: 'refusedAddressRate', code: 'WSG_RATE_LIMITED', detail: 'upgrades of this address', retryAfterSeconds }
      }
    }
    return this.#full(address)
  }

  /**
   * Judges an upgrade after authentication, as the last step before it succeeds. Every `Admission` has to be given back to `leave`. Returns
   * a promise only where the cluster has to be asked.
   * @throws {WebsocketGroupsError} WSG_IDENTITY_INVALID
   */
  admit (address: ClientAddress | undefined, identity: Identity | null): Admission | Refusal | Promise<Admission | Refusal> {
    const userId = identity === null ? undefined : readIdentity(identity, this.#options).userId
    if (identity !== null && this.#blocks.covers(identity)) return { limit: 'refusedBlocked', code: 'WSG_BLOCKED', detail: '' }
    const full = this.#full(address)
    if (full !== undefined) return full
    const waitSeconds = this.#bucket?.take() ?? 0
    if (waitSeconds > 0) {
      return { limit: 'refusedUpgradeRate', code: 'WSG_REFUSED', detail: 'too many at once', retryAfterSeconds: waitSeconds }
    }
    const counted = address !== undefined && this.#limited('connectionsPerAddress', address) ? address.key : ''
    const admission = this.#admissions.add(counted, userId)
    this.#userChanged(userId)
    const { connectionsPerUser } = this.#limits
    return userId === undefined || connectionsPerUser === undefined ? admission : this.#admitUser(admission, userId, connectionsPerUser)
  }

  async #admitUser (admission: Admission, userId: string, connectionsPerUser: number): Promise<Admission | Refusal> {
    try {
      if (await this.#hasRoom(userId, connectionsPerUser)) return admission
    } catch (error) {
      this.leave(admission)
      throw error
    }
    this.leave(admission)
    return { limit: 'refusedUserFull', code: 'WSG_TOO_MANY_CONNECTIONS', detail: 'of this user', retryAfterSeconds: fullRetrySeconds }
  }

  /**
   * An upgrade became a connection of this user; `admission` is missing where `admit` did not judge the upgrade. Returns the keys that the
   * connection is counted by until it ends.
   */
  opened (admission: Admission | undefined, userId: string | undefined): Admission {
    if (admission !== undefined && admission.userId === userId) return admission
    // A hook that ran after `admit` changed the identity: count the connection by the new one.
    if (admission !== undefined) this.leave(admission)
    const counted = this.#admissions.add(admission?.address ?? '', userId)
    if (userId !== undefined) this.#store(userId)
    this.#userChanged(userId)
    return counted
  }

  /** The connection is closed, or the upgrade did not become one. Called once for each. */
  leave (admission: Admission): void {
    this.#admissions.remove(admission)
    if (admission.userId === undefined) return
    this.#store(admission.userId)
    this.#userChanged(admission.userId)
  }

  /** The first connection of a user here, or the end of the last one, may be the first or the last in the cluster. */
  #userChanged (userId: string | undefined): void {
    if (userId !== undefined && this.#admissions.ofUser(userId) <= 1) this.#occupancy.changed('user', userId)
  }

  connectionsOf (userId: string): number {
    return this.#admissions.ofUser(userId)
  }

  userIds (): Iterable<string> {
    return this.#admissions.userIds()
  }

  stats (): Record<string, number> {
    return { ...this.#admissions.stats(), addressesRemembered: this.#addressRates?.size ?? 0 }
  }

  #full (address: ClientAddress | undefined): Refusal | undefined {
    const { connections, connectionsPerAddress } = this.#limits
    if (connections !== undefined && this.#admissions.total >= connections) {
      const detail = 'this instance has as many connections as it may'
      return { limit: 'refusedInstanceFull', code: 'WSG_REFUSED', detail, retryAfterSeconds: fullRetrySeconds }
    }
    if (connectionsPerAddress === undefined || address === undefined) return undefined
    if (this.#admissions.ofAddress(address.key) < connectionsPerAddress) return undefined
    return { limit: 'refusedAddressFull', code: 'WSG_TOO_MANY_CONNECTIONS', detail: 'of this address', retryAfterSeconds: fullRetrySeconds }
  }

  /**
   * Whether the user may have another connection in the whole cluster. While the backplane cannot tell, only the connections of this
   * instance count.
   */
  async #hasRoom (userId: string, connectionsPerUser: number): Promise<boolean> {
    // Connections of this instance that came at the same time or later do not count against this one.
    const place = this.#admissions.ofUser(userId)
    try {
      return place + await this.#backplane.syncUser(userId) <= connectionsPerUser
    } catch (error) {
      if (!isOutage(error)) throw error
      this.#metrics.userLimitsLocal++
      return place <= connectionsPerUser
    }
  }

  /** The backplane itself repeats what it could not store. */
  #store (userId: string): void {
    if (this.#limits.connectionsPerUser !== undefined) this.#backplane.syncUser(userId).catch(() => {})
  }

  #limited (limit: 'connectionsPerAddress' | 'upgradesPerAddress', { isPrivate }: ClientAddress): boolean {
    return !isPrivate || this.#limits.explicit.has(limit)
  }
}
