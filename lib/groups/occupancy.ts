import type { FastifyBaseLogger } from 'fastify'
import type { Backplane, Presences } from '../backplane/backplane.ts'
import { isOutageOrClosed } from '../errors.ts'
import type { BoundedLog } from '../logging.ts'
import type { OccupancyHooks } from '../options/types.ts'

/** How often all groups and users are compared, which also renews the record in Redis (milliseconds). */
const recheckMs = 1_800_000
const retryMs = 2_000

/**
 * Calls the hooks of the application when a group gets its first member or loses its last one, and when a user comes or goes: each call on
 * one instance of the cluster. States are compared, not events, so an outage, or an instance that dies, delays a call but loses none.
 */
export class Occupancy {
  readonly #backplane: Pick<Backplane, 'settle' | 'syncUser'>
  readonly #hooks: OccupancyHooks
  readonly #log: FastifyBaseLogger
  readonly #lines: BoundedLog
  readonly #here: (kind: Presences) => Iterable<string>
  /** What is to be compared. Nothing while `#all` is set: clients can make up any number of names in an outage. */
  readonly #dirty = { group: new Set<string>(), user: new Set<string>() }
  /** Compare everything that is recorded, and all groups and users of this instance. */
  #all = false
  #flushing: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #retry: NodeJS.Timeout | undefined
  #closed = false

  /** `here`: the groups that have members on this instance, or the users that have connections. */
  constructor (
    backplane: Pick<Backplane, 'settle' | 'syncUser'>, here: (kind: Presences) => Iterable<string>, hooks: OccupancyHooks,
    log: FastifyBaseLogger, lines: BoundedLog
  ) {
    this.#backplane = backplane
    this.#here = here
    this.#hooks = hooks
    this.#log = log
    this.#lines = lines
  }

  /** Whether the application has a hook for groups, or for users. */
  watches (kind: Presences): boolean {
    const { onOccupied, onVacated, onUserOnline, onUserOffline } = this.#hooks
    return (kind === 'group' ? onOccupied ?? onVacated : onUserOnline ?? onUserOffline) !== undefined
  }

  start (): void {
    if (this.watches('group') || this.watches('user')) this.#timer = setInterval(() => this.recheck(), recheckMs).unref()
  }

  /** This instance got the first member of the group (connection of the user), or lost the last one. */
  changed (kind: Presences, name: string): void {
    if (!this.watches(kind)) return
    if (!this.#all) this.#dirty[kind].add(name)
    // The backplane itself remembers what it could not store.
    else if (kind === 'user') this.#backplane.syncUser(name).catch(() => {})
    if (this.#retry === undefined) this.#schedule()
  }

  /** An instance died, or the backplane is back: everything may have changed. */
  recheck (): void {
    if (!this.watches('group') && !this.watches('user')) return
    this.#all = true
    clearTimeout(this.#retry)
    this.#again()
  }

  /** Resolves when the hooks were called for all changes so far, unless the backplane is out. */
  async close (): Promise<void> {
    this.#closed = true
    clearInterval(this.#timer)
    clearTimeout(this.#retry)
    if (this.#all) this.#schedule()
    await this.#flushing
  }

  #schedule (): void {
    this.#flushing ??= this.#flush()
  }

  /** Never rejects. A comparison that failed is repeated until it succeeds. */
  async #flush (): Promise<void> {
    // Collects the changes that the running code still makes.
    await Promise.resolve()
    try {
      while (this.#all || this.#dirty.group.size > 0 || this.#dirty.user.size > 0) {
        const all = this.#all
        this.#all = false
        for (const kind of ['group', 'user'] as const) await this.#settle(kind, all)
      }
    } catch (error) {
      this.#all = true
      // Compare what changed meanwhile.
      for (const name of this.#dirty.user) this.changed('user', name)
      for (const names of Object.values(this.#dirty)) names.clear()
      if (!this.#closed) this.#retry ??= setTimeout(() => this.#again(), retryMs).unref()
      if (!isOutageOrClosed(error)) {
        this.#lines.write(this.#log, 'occupancy_unknown', { err: error })
      }
    } finally {
      // Not a microtask later: a change that came in between would start no flush.
      this.#flushing = undefined
    }
  }

  #again (): void {
    this.#retry = undefined
    this.#schedule()
  }

  async #settle (kind: Presences, all: boolean): Promise<void> {
    if (!this.watches(kind)) return
    const changed = [...this.#dirty[kind]]
    this.#dirty[kind].clear()
    // The backplane stores what cannot be stored now before the next comparison.
    if (kind === 'user') await Promise.allSettled(changed.map(async name => await this.#backplane.syncUser(name)))
    const names = all ? [...changed, ...this.#here(kind)] : changed
    if (names.length > 0) await this.#tell(kind, names)
    if (all) await this.#tell(kind, undefined)
  }

  async #tell (kind: Presences, names: readonly string[] | undefined): Promise<void> {
    for (const { name, present } of await this.#backplane.settle?.(kind, names) ?? []) this.#call(kind, present, name)
  }

  #call (kind: Presences, present: boolean, name: string): void {
    const { onOccupied, onVacated, onUserOnline, onUserOffline } = this.#hooks
    const hook = kind === 'group' ? present ? onOccupied : onVacated : present ? onUserOnline : onUserOffline
    if (hook === undefined) return
    void (async () => { await hook(name) })().catch((error: unknown) => {
      this.#lines.write(this.#log, 'hook_failed', { err: error, [kind]: name })
    })
  }
}
