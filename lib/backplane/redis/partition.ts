import { deferred, withDeadline, withProgress, type Deferred } from '../../deadline.ts'
import { WebsocketGroupsError } from '../../errors.ts'
import { logEvent, oncePerMinute } from '../../logging.ts'
import type { BackplaneState } from '../../types.ts'
import type { LocalInstance, LogPage, LogPosition, Target } from '../backplane.ts'
import { decode, isLogged, previousNonce } from './envelope.ts'
import type { Keys } from './keys.ts'
import { RedisClock } from './link/clock.ts'
import { EvictionWatch } from './link/evictions.ts'
import type { Links } from './link/port.ts'
import { PubSubProbe } from './link/subscriptions/pubsub-probe.ts'
import { isFinal, refused } from './link/server.ts'
import { Subscriptions } from './link/subscriptions/subscriptions.ts'
import { LogFollowers } from './log/followers.ts'
import { Audit } from './membership/audit.ts'
import { LogOpening } from './log/opening.ts'
import { isInLog } from './log/page.ts'
import { BlockStore } from './membership/blocks.ts'
import { Lease } from './membership/lease.ts'
import { OccupancyStore } from './membership/occupancy.ts'
import { MemberReconciler } from './membership/reconciler.ts'
import { MemberStore } from './membership/store.ts'
import { UserCounts } from './membership/users.ts'
import type { PartitionOptions } from './partition-options.ts'
import { StateReport } from './state-report.ts'
import { RedisWriter } from './writer.ts'

/** How often all memberships are written again, in case keys were evicted, and to renew their safety TTL. */
const refreshMs = 3_600_000
/** Every how many beats one partition of many compares its memberships, which are few, with what is stored. */
const beatsPerAudit = 4
/** How often the ends of quiet logs are compared with what was delivered. */
const sweepMs = 60_000
/**
 * How long `close` waits for Redis since the latest answer. Together with the half second that each link may take to close, less than the
 * two seconds that `close` promises for a Redis that hangs.
 */
const closeMs = 1_400

/** What one instance has in Redis between start and close: its subscriptions, members and lease, and the followers of its logs. */
export class Partition {
  readonly subscriptions: Subscriptions
  readonly members: MemberReconciler
  readonly users: UserCounts
  readonly blocks: BlockStore
  readonly lease: Lease
  readonly clock: RedisClock
  readonly occupancy: OccupancyStore
  readonly writer: RedisWriter
  readonly #links: Links
  readonly #store: MemberStore
  readonly #keys: Keys
  /** Parts that may be in trouble while both links work. */
  readonly #parts: ReadonlyArray<{ readonly problem: string | undefined }>
  readonly #ownsWriter: boolean
  readonly #followers: LogFollowers
  readonly #opening: LogOpening
  readonly #probe: PubSubProbe
  readonly #evictions: EvictionWatch
  readonly #local: LocalInstance
  readonly #warnBadEnvelope: (fields: object) => void
  readonly #refresher: NodeJS.Timeout
  readonly #sweeper: NodeJS.Timeout
  readonly #stateReport: StateReport
  #badEnvelopes = 0
  /** Everything wanted was requested on the present subscribe link. */
  #resubscribed = false
  #closed = false
  /** Set from the call of `boot` until the boot is decided. */
  #booting: Deferred<void> | undefined = deferred()

  /**
   * With `writer`, this is one partition of many, made when something is subscribed or joined in it. The writer outlives the partition,
   * which does not boot, and has no lease before one is wanted.
   */
  constructor (links: Links, options: PartitionOptions, keys: Keys, local: LocalInstance, writer?: RedisWriter) {
    const { command, subscribe } = this.#links = links
    this.#local = local
    this.#keys = keys
    this.#warnBadEnvelope = oncePerMinute(local.log, 'envelope_unknown')
    this.#stateReport = new StateReport(this, () => local.stateChanged(), writer === undefined)
    const report = (): void => this.#report()
    this.#ownsWriter = writer === undefined
    this.writer = writer ?? new RedisWriter(command, keys, options.whenDown, local.log)
    this.#followers = new LogFollowers(links, keys, local, report, this.writer.differences)
    const inbox = keys.channel({ kind: 'instance', name: local.instanceId })
    this.subscriptions = new Subscriptions(subscribe, options.joinTimeoutMs, options.lingerMs, inbox, {
      acked: names => { void this.#followers.subscribed(names.map(name => this.#keys.groupOf(name)).filter(group => group !== undefined)) },
      dropped: name => this.#followers.forget(this.#keys.groupOf(name) ?? ''),
      changed: report
    })
    // The read begins early enough to end within the time that a join may take, and so late that most subscriptions are done by then.
    const openAfterMs = Math.max(options.joinTimeoutMs / 2, options.joinTimeoutMs - command.deadlineMs)
    this.#opening = new LogOpening(this.#followers, openAfterMs, group => {
      return this.subscriptions.wants(keys.channel({ kind: 'group', name: group })) && local.logged(group)
    })
    this.#probe = new PubSubProbe(command, subscribe, this.subscriptions, inbox)
    this.#evictions = new EvictionWatch(command, local.log)
    const store = this.#store = new MemberStore(command, keys, local)
    this.lease = new Lease(command, keys, local, store, options.leaseMs, !this.#ownsWriter)
    const beatsPerLook = this.#ownsWriter ? 1 : beatsPerAudit
    const awaits = (group: string): boolean => this.subscriptions.awaits(keys.channel({ kind: 'group', name: group }))
    const audit = new Audit(command, keys, local, this.#evictions, awaits, options.leaseMs, beatsPerLook)
    this.members = new MemberReconciler(command, store, this.lease, local, audit, report)
    this.users = new UserCounts(command, keys, this.lease, local, this.#evictions, beatsPerLook)
    this.blocks = new BlockStore(command, keys, local, this.lease)
    this.clock = new RedisClock(command)
    this.occupancy = new OccupancyStore(command, keys)
    this.#parts = [this.lease, this.members, this.subscriptions, this.#followers]
    this.lease.on({ changed: report, refused: error => this.#decideBoot(error) })
    command.on({
      up: () => {
        this.#followers.resume()
        // The link may lead to another server now, which has other logs.
        this.#check()
      },
      down: report,
      error: error => this.#failed(error)
    })
    subscribe.on({
      up: () => { void this.#resubscribe() },
      down: () => {
        // After a hang, as after a break, only a new connection is sure to have the subscriptions that we think it has.
        subscribe.reset(true)
        this.#resubscribed = false
        this.subscriptions.disconnected()
        report()
      },
      error: error => this.#failed(error)
    })
    subscribe.onMessage((channel, bytes, late) => this.#receive(channel, bytes, late))
    this.#refresher = setInterval(() => {
      this.members.refresh()
      this.users.refresh()
    }, refreshMs).unref()
    this.#sweeper = setInterval(() => this.#check(), sweepMs).unref()
    if (this.#ownsWriter) return
    this.#booting = undefined
    this.#resubscribed = subscribe.up
    this.#stateReport.begin()
  }

  get state (): BackplaneState {
    if (!this.#links.command.up || !this.#links.subscribe.up) return 'down'
    return this.#parts.every(({ problem }) => problem === undefined) ? 'up' : 'degraded'
  }

  /** As `Observed.passing`. */
  get passing (): boolean {
    return this.state === 'degraded' && this.#parts.every(part => part === this.#followers || part.problem === undefined)
  }

  get problems (): readonly string[] {
    const down = [this.#links.command.problem, this.#links.subscribe.problem].filter(problem => problem !== undefined)
    // Warnings do not change `state`.
    const warnings = [this.lease.warning, this.#evictions.problem, this.writer.differences.problem]
    return [...down.length > 0 ? down : this.#parts.map(({ problem }) => problem), ...warnings].filter(problem => problem !== undefined)
  }

  /** Resolves once envelopes for the target reach this instance and, for a group with a log, once its position in the log is known. */
  async subscribe (target: Target): Promise<void> {
    const channel = this.#keys.channel(target)
    const subscribing = this.subscriptions.subscribe(channel)
    if (target.kind !== 'group') return await subscribing
    await (this.subscriptions.has(channel) ? subscribing : this.#opening.beside(target.name, subscribing))
    // Nothing if the group was left meanwhile: its next subscription would have to catch up, with messages that nobody is owed.
    if (this.subscriptions.wants(channel) && this.#local.logged(target.name)) await this.#followers.open(target.name)
  }

  position (group: string): LogPosition | undefined { return this.#followers.position(group) }

  async history (group: string, since: LogPosition | undefined, limit: number): Promise<LogPage> {
    return await this.#opening.read(group, async () => await this.writer.history(group, since, limit))
  }

  /** Resolves when all works, or after `deadlineMs`. @throws what waiting cannot heal */
  async boot (deadlineMs: number): Promise<void> {
    const decided = this.#booting?.promise ?? Promise.resolve()
    await withDeadline(decided.then(async () => await this.#evictions.look()), deadlineMs, () => this.#decideBoot())
    this.lease.schedule()
    this.#report()
  }

  stats (): Record<string, number> {
    const [command, subscribe] = [this.#links.command.stats(), this.#links.subscribe.stats()]
    const { envelopesUnknown = 0, ...followers } = this.#followers.stats()
    return {
      ...this.lease.stats(),
      ...(this.#ownsWriter ? this.writer.stats() : {}),
      ...followers,
      ...this.#evictions.stats(),
      ...this.#links.command.bulk.stats(),
      redisUp: Number(this.#links.command.up && this.#links.subscribe.up),
      redisConnections: command.connections + subscribe.connections,
      redisTimeouts: command.timeouts + subscribe.timeouts,
      redisReconnects: command.reconnects + subscribe.reconnects,
      channelsWanted: this.subscriptions.wanted,
      channelsSubscribed: this.subscriptions.acked,
      envelopesUnknown: this.#badEnvelopes + envelopesUnknown
    }
  }

  async close (): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#decideBoot(new WebsocketGroupsError('WSG_CLOSED'))
    clearInterval(this.#refresher)
    clearInterval(this.#sweeper)
    this.#stateReport.close()
    this.#probe.close()
    this.#followers.close()
    if (this.#ownsWriter) this.writer.close()
    let membersClosedAt = 0
    // Close both side by side: a subscribe link that hangs must not use up the time that the command link needs.
    const givenBack = Promise.all([this.subscriptions.close(), this.users.close(), this.members.close().then(async () => {
      membersClosedAt = performance.now()
      await this.lease.close()
    })])
    try {
      await withProgress(givenBack, closeMs, () => Math.max(membersClosedAt, this.#store.answeredAt), () => {
        throw new WebsocketGroupsError('WSG_TIMEOUT', `Redis did not answer for ${closeMs} ms`)
      })
    } catch (error) {
      logEvent(this.#local.log, 'members_left_behind', { err: error })
    }
    await Promise.all([this.#links.command.close(), this.#links.subscribe.close()])
  }

  #decideBoot (error?: Error): void {
    const booting = this.#booting
    this.#booting = undefined
    if (error === undefined) booting?.resolve()
    else booting?.reject(error)
  }

  #check (): void {
    void this.clock.compare()
    this.#followers.sweep().catch((err: unknown) => {
      this.#local.log.debug({ err }, 'quiet logs could not be compared; the next sweep tries again')
    })
  }

  #failed (error: Error): void {
    if (isFinal(error)) this.#decideBoot(refused(error))
    this.#local.log.debug({ err: error }, 'Redis link error')
  }

  /** Subscribes on a new connection once the one before brings nothing more, which logs may not have any longer. Never rejects. */
  async #resubscribe (): Promise<void> {
    const { subscribe } = this.#links
    const { connection } = subscribe
    await subscribe.previousDrained()
    if (!subscribe.up || subscribe.connection !== connection || this.#closed) return
    this.#resubscribed = true
    this.subscriptions.connected()
    this.#report()
  }

  #receive (channel: Buffer, bytes: Buffer, late: boolean): void {
    if (this.#probe.received(bytes)) return
    const envelope = decode(bytes)
    if (envelope === undefined) {
      if (isInLog(bytes, this.#followers.position(this.#keys.groupOf(channel.toString()) ?? ''))) return
      this.#badEnvelopes++
      return this.#warnBadEnvelope({ channel: channel.toString(), bytes: bytes.length })
    }
    if (isLogged(envelope)) this.#followers.receive(envelope, previousNonce(bytes))
    // A late message without a place in a log may have come by the new connection, too.
    else if (!late || !this.#resubscribed) this.#followers.volatile.receive(envelope)
  }

  /** Something changed: ends the boot once all works, and reports each change of state once. */
  #report (): void {
    const inStep = this.#resubscribed && this.subscriptions.problem === undefined && this.#followers.problem === undefined
    if (inStep) this.#links.subscribe.dropPrevious()
    if (this.state === 'up') this.#decideBoot()
    // At boot it is normal that not everything is complete yet.
    if (!this.#closed && this.#booting === undefined) this.#stateReport.look()
  }
}
