import { randomUUID } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import { WebsocketGroupsError } from '../../../errors.ts'
import { oncePerMinute } from '../../../logging.ts'
import type { LocalInstance } from '../../backplane.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/link.ts'
import type { MemberStore } from './store.ts'
import type { MemberReconciler } from './reconciler.ts'
import { beat, unregister, markReaped, safetyTtlMs } from './scripts.ts'

const beatsPerLease = 3
const maxClaims = 8
/** A dead instance is looked at once more after this long, for a write it made before it noticed. */
const secondLookMs = 60_000
const retryMs = 1_000

const Status = { taken: -1, dead: 0, renewed: 1, registered: 2 } as const

/**
 * This instance's claim on its members. One beat renews it, notices when the instance was declared dead or Redis lost its data, and claims
 * dead instances to clean up after. Everything is timed by the clock of Redis.
 */
export class Lease {
  readonly #link: Link
  readonly #keys: Keys
  readonly #local: LocalInstance
  readonly #members: MemberReconciler
  readonly #store: MemberStore
  readonly #leaseMs: number
  readonly #log: FastifyBaseLogger
  readonly #changed: () => void
  readonly #warnNotRenewed: (fields: object) => void
  readonly #nonce = randomUUID()
  #timer: NodeJS.Timeout | undefined
  #beating: Promise<void> | undefined
  #reaping: Promise<void> = Promise.resolve()
  #hadLease = false
  /** The generation of the last renewal. */
  #registered = 0
  #failure: Error | undefined
  #renewedAt = -Infinity
  #closed = false
  #lost = 0
  #reapedInstances = 0
  #reapedMembers = 0

  constructor (link: Link, keys: Keys, local: LocalInstance, members: MemberReconciler, store: MemberStore, leaseMs: number, changed: () => void) {
    this.#link = link
    this.#keys = keys
    this.#local = local
    this.#members = members
    this.#store = store
    this.#leaseMs = leaseMs
    this.#log = local.log
    this.#changed = changed
    this.#warnNotRenewed = oncePerMinute(local.log, 'lease not renewed')
  }

  /** Milliseconds since the last renewal. */
  get ageMs (): number {
    return performance.now() - this.#renewedAt
  }

  get held (): boolean {
    return this.ageMs < this.#leaseMs
  }

  get problem (): string | undefined {
    if (this.held) return undefined
    return `this instance holds no lease: the others may count its members as gone${this.#failure === undefined ? '' : ` (${this.#failure.message})`}`
  }

  stats (): Record<string, number> {
    return { leasesLost: this.#lost, instancesReaped: this.#reapedInstances, membersReaped: this.#reapedMembers }
  }

  /**
   * Renews the lease now and, when it was gone, everything that hangs on it. Calls at the same time share one beat.
   * @throws {WebsocketGroupsError} WSG_INSTANCE_ID_TAKEN, WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT, WSG_CLOSED
   */
  async renew (): Promise<void> {
    // Someone may have been about to ask when the lease was given back: it must not come to life again.
    if (this.#closed) throw new WebsocketGroupsError('WSG_CLOSED')
    this.#beating ??= this.#beat().finally(() => { this.#beating = undefined })
    try {
      await this.#beating
      this.#failure = undefined
    } catch (error) {
      this.#failure = error as Error
      this.#changed()                                           // that time runs out is no event
      throw error
    }
  }

  /** Renews from now on; a beat that fails is repeated soon. */
  schedule (delayMs = this.#nextBeatMs()): void {
    clearTimeout(this.#timer)
    if (this.#closed) return
    this.#timer = setTimeout(() => {
      if (!this.#link.up) return this.schedule()                // the link's return renews at once
      this.renew().then(() => this.schedule(), (error: Error) => {
        this.#warnNotRenewed({ err: error })
        this.schedule(retryMs)
      })
    }, delayMs).unref()
  }

  async close (): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#beating?.catch((error: Error) => this.#log.debug({ err: error }, 'last beat failed'))
    await this.#reaping
    // Without a lease nothing was stored; and the members of another process with this id are not ours to remove.
    if (!this.#link.up || !this.#hadLease) return
    await this.#store.removeAll(this.#local.instanceId, this.#store.generation)
    await this.#link.script(unregister, [this.#keys.leases, this.#keys.instances], [this.#local.instanceId, this.#nonce])
  }

  async #beat (): Promise<void> {
    // A process that slept for longer than its lease may be dead to the others already: nothing is written before this beat tells.
    if (this.#hadLease && !this.held) this.#members.suspend()
    if (this.#store.needsFence) this.#store.nextGeneration()
    const { generation } = this.#store
    const sentAt = performance.now()
    const [status = Status.dead, ...claims] = await this.#link.script(
      beat, [this.#keys.leases, this.#keys.instances, this.#keys.generations],
      [this.#local.instanceId, generation, this.#nonce, this.#leaseMs, this.#leaseMs, maxClaims, safetyTtlMs]
    ) as [number, ...string[]]
    if (status === Status.taken) {
      this.#hadLease = false
      throw new WebsocketGroupsError('WSG_INSTANCE_ID_TAKEN', this.#local.instanceId)
    }
    if (status === Status.dead) {
      this.#lost++
      this.#members.suspend()
      this.#log.warn({ generation: this.#store.nextGeneration() }, 'this instance was declared dead; it registers anew')
      return await this.#beat()
    }
    // A newer generation is registered anew because this instance wants it, the same one because Redis does not know it any more.
    const lost = status === Status.registered && generation === this.#registered
    if (lost) this.#log.warn('Redis did not know this instance any more: all memberships are written anew')
    this.#hadLease = true
    this.#registered = generation
    this.#renewedAt = sentAt
    if (lost || !this.#members.active) this.#members.resume(lost)
    this.#reap(claims)
  }

  /** One after another, beside the beats. */
  #reap (claims: string[]): void {
    for (let at = 0; at + 1 < claims.length; at += 2) {
      const [instanceId = '', generation = ''] = claims.slice(at, at + 2)
      if (instanceId === this.#local.instanceId) continue       // it is alive again by now
      this.#reaping = this.#reaping.then(async () => await this.#reapOne(instanceId, Number(generation)))
    }
  }

  async #reapOne (instanceId: string, generation: number): Promise<void> {
    if (this.#closed) return
    try {
      const removed = await this.#store.removeAll(instanceId, generation)
      if (removed === undefined) return
      const first = await this.#link.script(markReaped, [this.#keys.leases, this.#keys.instances], [instanceId, generation, secondLookMs]) === 1
      if (first) this.#reapedInstances++
      this.#reapedMembers += removed.members
      if (removed.members > 0) this.#local.membersLost?.()
      if (first || removed.members > 0) this.#log.info({ instance: instanceId, ...removed }, 'cleaned up after a dead instance')
    } catch (error) {
      // The claim runs out like a lease: someone, maybe this instance, claims again.
      this.#log.warn({ err: error, instance: instanceId }, 'cleaning up after a dead instance failed')
    }
  }

  /** A third of the lease, up to a fifth earlier, so that a thousand instances do not beat in one instant. */
  #nextBeatMs (): number {
    return this.#leaseMs / beatsPerLease * (0.8 + Math.random() * 0.2)
  }
}
