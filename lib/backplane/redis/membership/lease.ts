import { randomUUID } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import { hasCode, WebsocketGroupsError } from '../../../errors.ts'
import { logEvent, oncePerMinute } from '../../../logging.ts'
import type { LocalInstance } from '../../backplane.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { checkServer, ClusterModeError, isFinal, refused, refusedRights } from '../link/server.ts'
import { nextBeatMs } from './beat-times.ts'
import { mending } from '../link/mending.ts'
import { Reaper } from './reaper.ts'
import { beat, safetyTtlMs, unregister } from './scripts.ts'
import { ServerClock } from './server-clock.ts'
import type { MemberStore } from './store.ts'

const maxClaims = 8
const retryMs = 1_000

const Status = { taken: -1, dead: 0, renewed: 1, registered: 2 } as const

interface LeaseEvents {
  /** This instance is registered: memberships may be written under `generation`. `lost`: what was stored before may be gone. */
  readonly resumed?: ((lost: boolean) => void) | undefined
  /** Memberships may not be written: other instances may count this one as dead, and may have removed its memberships. */
  readonly suspended?: (() => void) | undefined
  /** A beat was sent. What a listener asks Redis now leaves in the same write, so Redis wakes up once for all of it. */
  readonly beating?: (() => void) | undefined
  /** This instance cleans up after these instances, whose leases ran out. */
  readonly claimed?: ((instanceIds: readonly string[]) => void) | undefined
  /** `problem` may have changed. */
  readonly changed?: (() => void) | undefined
  /** Registering failed for a reason that waiting cannot heal. */
  readonly refused?: ((error: Error) => void) | undefined
}

/**
 * This instance's claim on its members, and whether it is registered at all. One beat renews the lease, notices when the instance was
 * declared dead or Redis lost its data, and claims dead instances to clean up after. The clock of Redis decides when a lease ends.
 */
export class Lease {
  readonly #link: Link
  readonly #keys: Keys
  readonly #local: LocalInstance
  readonly #store: MemberStore
  readonly #reaper: Reaper
  readonly #leaseMs: number
  readonly #log: FastifyBaseLogger
  readonly #listeners: LeaseEvents[] = []
  readonly #warnNotRenewed: (fields: object) => void
  readonly #warnNotRegistered: (fields: object) => void
  readonly #nonce = randomUUID()
  readonly #clock: ServerClock
  /** Whether this is the lease of one partition of many: to be without it before the first registration is no problem. */
  readonly #isPart: boolean
  /** Whether anything needs the lease. */
  #wanted: boolean
  #wanting: Promise<void> | undefined
  #active = false
  #generation = 1
  /** The generation of the last renewal; 0: this process never had a lease. */
  #renewed = 0
  #renewedAt = -Infinity
  /** The server that the memberships were last compared with. */
  #server: string | undefined
  #missing: readonly string[] = []
  /** The next beat may go to another server, so Redis may have lost memberships, whatever that beat says. */
  #otherServer = false
  #timer: NodeJS.Timeout | undefined
  #retryTimer: NodeJS.Timeout | undefined
  #beating: Promise<void> | undefined
  #failure: Error | undefined
  #closed = false
  #lost = 0

  /** `isPart`: the lease of one partition of many registers when `want` is called, any other as soon as the link works. */
  constructor (link: Link, keys: Keys, local: LocalInstance, store: MemberStore, leaseMs: number, isPart = false) {
    this.#link = link
    this.#isPart = isPart
    this.#wanted = !isPart
    this.#keys = keys
    this.#local = local
    this.#store = store
    this.#reaper = new Reaper(link, keys, local, store)
    this.#leaseMs = leaseMs
    this.#clock = new ServerClock(leaseMs)
    this.#log = local.log
    this.#warnNotRenewed = oncePerMinute(local.log, 'lease_not_renewed')
    this.#warnNotRegistered = oncePerMinute(local.log, 'not_registered')
    link.on({ up: () => { if (this.#wanted) void this.#register() }, down: () => this.#suspend() })
  }

  /** Adds a listener. Listeners are called in the order in which they were added. */
  on (listener: LeaseEvents): void {
    this.#listeners.push(listener)
  }

  /** Whether this instance is registered, so that it may write memberships: from `resumed` to `suspended`. */
  get active (): boolean {
    // A process that slept for longer than its lease may be dead to the others already: the next beat tells.
    return this.#active && this.held
  }

  /** Memberships are written under this number. A newer one fences off late writes of older ones, and whoever cleans up after them. */
  get generation (): number {
    return this.#generation
  }

  /** Milliseconds since the last renewal. */
  get ageMs (): number {
    return performance.now() - this.#renewedAt
  }

  get held (): boolean {
    return this.ageMs < this.#leaseMs
  }

  get problem (): string | undefined {
    if (this.active || !this.#wanted || (this.#isPart && this.#renewed === 0 && this.#failure === undefined)) return undefined
    const why = this.#failure === undefined ? '' : ` (${this.#failure.message})`
    if (this.held) return `it is not known yet whether Redis still has the members of this instance${why}`
    return `this instance holds no lease: the others may count its members as gone${why}`
  }

  stats (): Record<string, number> {
    return { leasesLost: this.#lost, ...this.#reaper.stats(), leaseAgeMs: this.#wanted ? Math.round(this.ageMs) : 0 }
  }

  /** Registers this instance if it is not registered. Resolves when that is done, or failed for now and will be tried again. */
  async want (): Promise<void> {
    if (!this.#wanted) {
      this.#wanted = true
      this.schedule()
      this.#wanting = this.#link.up ? this.#register().finally(() => { this.#wanting = undefined }) : undefined
    }
    await this.#wanting
  }

  /** Names rights that were taken away since the boot: this instance goes on with the rights that are left. */
  get warning (): string | undefined {
    return this.#missing.length > 0 ? refusedRights(this.#missing).message : undefined
  }

  /** Redis knows a newer generation of this instance: stops writing, and registers again. */
  fenced (): void {
    this.#suspend()
    void this.#register()
  }

  /** Renews the lease from now on; a beat that fails is repeated soon. */
  schedule (delayMs = nextBeatMs(this.#leaseMs, this.#isPart)): void {
    clearTimeout(this.#timer)
    if (this.#closed) return
    this.#timer = setTimeout(() => {
      if (!this.#link.up) return this.schedule()                // the link's return registers at once
      this.#renew().then(() => this.schedule(), (error: Error) => {
        this.#warnNotRenewed({ err: error })
        this.schedule(retryMs)
      })
    }, delayMs).unref()
  }

  /** Gives the lease and all memberships back. */
  async close (): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    clearTimeout(this.#retryTimer)
    await this.#beating?.catch((error: Error) => this.#log.debug({ err: error }, 'the last beat of the lease failed'))
    await this.#reaper.close()
    // Without a lease nothing was stored; and the members of another process with this id must not be removed here.
    if (!this.#link.up || this.#renewed === 0) return
    await this.#store.removeAll(this.#local.instanceId, this.#generation)
    await this.#link.script(unregister, [this.#keys.leases, this.#keys.instances], [this.#local.instanceId, this.#nonce])
  }

  /** Registers this instance: when the command link works (again), or it was fenced off. Tries until that succeeds or the link breaks. */
  async #register (): Promise<void> {
    clearTimeout(this.#retryTimer)
    try {
      const { id, missing } = await checkServer(this.#link, this.#keys, 'instance')
      // An instance that runs already goes on with the rights that are left.
      this.#missing = missing
      if (missing.length > 0 && this.#renewed === 0) throw refusedRights(missing)
      // Another server may have been a replica that lacked the latest writes, and a restarted one may have lost them. A server without an
      // id may be another one each time.
      if (id === undefined || id !== this.#server) this.#otherServer = true
      await this.#renew()
      this.#server = id
      for (const { changed } of this.#listeners) changed?.()
    } catch (error) {
      this.#refuse(error as Error)
      if (this.#closed || !this.#link.up) return                // the link's return starts over
      // At boot it is no fault that the server is a node of a cluster: the backplane starts again, with the cluster.
      if (this.#renewed > 0 || !(error instanceof ClusterModeError)) this.#warnNotRegistered({ err: error })
      clearTimeout(this.#retryTimer)
      this.#retryTimer = setTimeout(() => { if (this.#link.up) void this.#register() }, retryMs).unref()
    }
  }

  /** Reports an error that waiting cannot heal. */
  #refuse (error: Error): void {
    const known = hasCode(error, 'WSG_REDIS_UNSUPPORTED', 'WSG_REDIS_REFUSED', 'WSG_INSTANCE_ID_TAKEN')
    if (!known && !isFinal(error)) return
    this.#failure = error
    for (const { refused: tell } of this.#listeners) tell?.(known ? error : refused(error))
  }

  /**
   * Renews the lease now and, when it was gone, registers the instance and its memberships again. Calls at the same time share one beat.
   * @throws {WebsocketGroupsError} WSG_INSTANCE_ID_TAKEN, WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT, WSG_CLOSED
   */
  async #renew (): Promise<void> {
    // A renewal may have been due when the lease was given back: the lease must not come to life again.
    if (this.#closed) throw new WebsocketGroupsError('WSG_CLOSED')
    if (this.#beating === undefined) {
      this.#beating = this.#beat().finally(() => { this.#beating = undefined })
      for (const { beating } of this.#listeners) beating?.()
    }
    try {
      await this.#beating
      this.#failure = undefined
    } catch (error) {
      this.#failure = error as Error
      // No event reports that the lease ran out.
      for (const { changed } of this.#listeners) changed?.()
      throw error
    }
  }

  async #beat (): Promise<void> {
    // The lease ran out: what was to be written under it is written when this beat got a new one.
    if (this.#renewed !== 0 && !this.held) this.#suspend()
    // Others may have renewed theirs a beat before this one, and no more since.
    if (this.#renewed !== 0 && this.ageMs > this.#leaseMs / 2) this.#clock.wasAway()
    if (this.#store.hasLateWrite(this.#generation)) this.#generation++
    const generation = this.#generation
    const [sentAt, expectedMs, most] = [performance.now(), this.#clock.expectedMs, this.#clock.settling ? 0 : maxClaims]
    const { leases, instances, generations } = this.#keys
    const keys = [[leases, 'ZCARD'], [instances, 'HLEN'], [generations, 'HLEN']] as const
    const [status = Status.dead, shownMs, ...claims] = await mending(this.#link, () => keys, async () => await this.#link.script(
      beat, keys.map(([key]) => key),
      [this.#local.instanceId, generation, this.#nonce, this.#leaseMs, this.#leaseMs, most, safetyTtlMs, expectedMs]
    )) as [number, number, ...string[]]
    this.#clock.shows(shownMs, expectedMs)
    if (status === Status.taken) {
      this.#renewed = 0
      throw new WebsocketGroupsError('WSG_INSTANCE_ID_TAKEN', this.#local.instanceId)
    }
    if (status === Status.dead) {
      this.#lost++
      this.#suspend()
      logEvent(this.#log, 'lease_lost', { generation: ++this.#generation })
      return await this.#beat()
    }
    // A newer generation registers because this instance wants that; the same one, because Redis no longer knows it.
    const forgotten = status === Status.registered && generation === this.#renewed
    if (forgotten) logEvent(this.#log, 'registration_lost')
    // The lease ran out while this beat was on its way: callers that read `active` meanwhile put their work off until `resumed`.
    if (!this.held) this.#active = false
    this.#renewed = generation
    this.#renewedAt = sentAt
    this.#resume(forgotten || this.#otherServer)
    const reaped = this.#reaper.add(claims)
    if (claims.length > 0) for (const { claimed } of this.#listeners) claimed?.(claims.filter((_, index) => index % 2 === 0))
    // A machine with many instances may have died: claims the next ones when these are cleaned up.
    if (claims.length === 2 * maxClaims) void reaped.then(() => { if (this.#link.up) this.schedule(0) })
  }

  #resume (lost: boolean): void {
    if (this.#active && !lost) return
    this.#active = true
    this.#otherServer = false
    for (const { resumed } of this.#listeners) resumed?.(lost)
  }

  #suspend (): void {
    this.#active = false
    for (const { suspended } of this.#listeners) suspended?.()
  }
}
