import { deferred, withDeadline } from '../../deadline.ts'
import { hasCode, WebsocketGroupsError } from '../../errors.ts'
import type { BackplaneState, Member } from '../../types.ts'
import type {
  Appended, AppendTarget, Block, Envelope, LocalInstance, LogPage, LogPosition, PresenceChange, Presences, StreamStore, Target
} from '../backplane.ts'
import { NamesClaim } from './claim.ts'
import { ClusterOccupancy } from './cluster-occupancy.ts'
import { ClusterReaper } from './cluster-reaper.ts'
import { clusterWay } from './cluster-way.ts'
import { ClusterWriter } from './cluster-writer.ts'
import type { RedisDeployment, Revocations } from './deployment.ts'
import { Keys } from './keys.ts'
import { CoverageWatch } from './link/cluster/coverage.ts'
import type { ClusterLinks } from './link/cluster/cluster.ts'
import type { ClusterSource } from './link/cluster/source.ts'
import { missingOnMasters } from './link/cluster/rights.ts'
import { isFinal, refused, refusedRights } from './link/server.ts'
import { Partition } from './partition.ts'
import type { PartitionOptions } from './partition-options.ts'
import { PartitionInstance } from './partition-instance.ts'
import { groupProblems, notOpen } from './problems.ts'
import { StateReport } from './state-report.ts'
import { sumStats } from './stats.ts'

interface ClusterBackplaneOptions extends PartitionOptions {
  readonly cluster: ClusterSource
  readonly keyPrefix: string
  readonly operationTimeoutMs: number
  readonly bootTimeoutMs: number
  /** How many partitions there are: the same number for all processes. @default 256 */
  readonly partitions?: number | undefined
}

interface Place {
  readonly partition: Partition
  readonly local: PartitionInstance
}

/**
 * The backplane over a Redis Cluster. All keys of a group or user lie in one partition, and all keys of a partition in one slot: when a
 * master is out, so are its partitions and no others. Partitions are opened when something is subscribed or joined in them.
 */
export class ClusterBackplane implements RedisDeployment {
  readonly #options: ClusterBackplaneOptions
  readonly #prefix: string
  /** The keys of each partition; empty before `start`. */
  #keys: readonly Keys[] = []
  readonly #places = new Map<number, Place>()
  readonly #occupancy = new ClusterOccupancy(async index => await this.#places.get(index)?.partition.users.stored())
  #links: ClusterLinks | undefined
  #writer: ClusterWriter | undefined
  #reaper: ClusterReaper | undefined
  #local: LocalInstance | undefined
  readonly #stateReport = new StateReport(this, () => this.#local?.stateChanged())
  #booting = deferred()
  #booted = false
  #claim: NamesClaim | undefined
  /** This instance registers in these partitions before it is ready: that of its inbox, and that of keys that belong to nobody. */
  #home: readonly Place[] = []
  #coverage: CoverageWatch | undefined
  #closed = false

  constructor (options: ClusterBackplaneOptions) {
    this.#options = options
    this.#prefix = options.cluster.keyPrefix + options.keyPrefix
  }

  get state (): BackplaneState {
    const links = this.#links
    if (links === undefined || this.#closed || this.#claim?.refusal !== undefined || !links.someUp) return 'down'
    if (!links.complete || this.#claim?.made !== true || !this.#registered) return 'degraded'
    for (const { partition } of this.#places.values()) if (partition.state !== 'up') return 'degraded'
    return 'up'
  }

  /** As `Observed.passing`. */
  get passing (): boolean {
    if (this.state !== 'degraded' || this.#links?.complete !== true || this.#claim?.made !== true || !this.#registered) return false
    return [...this.#places.values()].every(({ partition }) => partition.state === 'up' || partition.passing)
  }

  get problems (): readonly string[] {
    const links = this.#links
    if (links === undefined || this.#closed) return [notOpen]
    if (this.#claim?.refusal !== undefined) return [this.#claim.refusal.message]
    if (links.problem !== undefined) return [links.problem]
    const problemsOf = (index: number): readonly string[] => this.#places.get(index)?.partition.problems ?? links.problemsOf(index)
    const list = groupProblems(this.#keys.map((_, index) => [index, problemsOf(index)] as const), this.#keys.length)
    // This problem does not change `state`.
    if (this.#coverage?.problem !== undefined) list.push(this.#coverage.problem)
    if (list.length > 0) return list
    if (this.#claim?.made !== true) return ['it is not known yet how others divide the keys']
    return this.#registered ? [] : ['this instance is not registered yet']
  }

  async start (local: LocalInstance): Promise<void> {
    const { cluster, operationTimeoutMs, bootTimeoutMs, leaseMs, whenDown } = this.#options
    this.#local = local
    const { links, keys } = clusterWay(cluster, this.#prefix, operationTimeoutMs, {
      changed: () => this.#changed(),
      error: error => this.#failed(error),
      subscribed: index => (this.#places.get(index)?.partition.subscriptions.acked ?? 0) > 0
    }, this.#options.partitions)
    this.#links = links
    this.#keys = keys
    this.#writer = new ClusterWriter(links, this.#keys, whenDown, local.log)
    const coverage = this.#coverage = new CoverageWatch(links.common, local.log)
    this.#claim = new NamesClaim(links.common, new Keys(this.#prefix), keys.length, failure => {
      // Look when the claim is made, and each time it is renewed: the cluster may have been set up otherwise since.
      if (failure === undefined) void coverage.look()
      else this.#failed(failure)
      this.#changed()
    })
    const home = this.#place(this.#writer.partitionOf({ kind: 'instance', name: local.instanceId }))
    // The lease in this partition tells whether the instance's id is taken.
    home.partition.lease.on({ refused: error => this.#booting.reject(error) })
    // All instances are registered in the partition of `everyone`, so those that died are found there.
    this.#home = [home, this.#of(everyone)]
    const hasLease = (index: number): boolean => this.#places.get(index)?.partition.lease.held === true
    const reaper = this.#reaper = new ClusterReaper(links.command, this.#keys, local, leaseMs, hasLease)
    this.#of(everyone).partition.lease.on({ claimed: ids => { reaper.died(ids) }, resumed: () => { void this.#claim?.renew() } })
    for (const { partition } of this.#home) {
      void partition.lease.want()
      partition.lease.on({ resumed: () => this.#changed() })
    }
    try {
      await withDeadline(this.#booting.promise, bootTimeoutMs, () => undefined)
    } catch (error) {
      await this.close()
      throw error
    }
    this.#booted = true
    this.#stateReport.begin()
  }

  /** By the clock of the master that has the keys that belong to nobody: the same master for all instances. */
  now (): number {
    return this.#places.get(this.#indexOf(everyone))?.partition.clock.now() ?? Date.now()
  }

  async subscribe (target: Target): Promise<void> { await this.#of(target).partition.subscribe(target) }

  unsubscribe (target: Target): void {
    const index = this.#indexOf(target)
    const channel = this.#keys[index]?.channel(target)
    if (channel !== undefined) this.#places.get(index)?.partition.subscriptions.unsubscribe(channel)
  }

  interrupted (target: Target): boolean {
    const index = this.#indexOf(target)
    return this.#places.get(index)?.partition.subscriptions.interrupted(this.#keys[index]?.channel(target) ?? '') ?? false
  }

  async publish (targets: readonly Target[], envelope: Envelope): Promise<number> { return await this.#open.publish(targets, envelope) }

  async append (targets: readonly AppendTarget[], envelope: Envelope, key?: string): Promise<Appended> {
    return await this.#open.append(targets, envelope, key)
  }

  async history (group: string, since: LogPosition | undefined, limit: number): Promise<LogPage> {
    const place = this.#places.get(this.#indexOf(groupTarget(group)))
    return await (place?.partition ?? this.#open).history(group, since, limit)
  }

  get streams (): StreamStore { return this.#open.streams }

  position (group: string): LogPosition | undefined {
    return this.#places.get(this.#indexOf(groupTarget(group)))?.partition.position(group)
  }

  async secret (candidate: string): Promise<string> { return await this.#open.secret(candidate) }

  revocationsOf (group: string): Revocations { return this.#open.revocationsOf(group) }

  async syncMember (group: string, connectionId: string): Promise<void> {
    const { partition, local } = this.#of(groupTarget(group))
    local.membersChanged(group)
    await partition.lease.want()
    await partition.members.sync(group, connectionId)
  }

  async syncUser (userId: string): Promise<number> {
    const { partition } = this.#of({ kind: 'user', name: userId })
    await partition.lease.want()
    return await partition.users.sync(userId)
  }

  async block (name: string, forMs: number): Promise<boolean> { return await this.#of(everyone).partition.blocks.set(name, forMs) }

  async blocks (): Promise<readonly Block[] | undefined> { return await this.#of(everyone).partition.blocks.list() }

  async instances (): Promise<ReadonlyMap<string, boolean>> { return await this.#open.instances() }

  async settle (kind: Presences, names: readonly string[] | undefined): Promise<readonly PresenceChange[]> {
    return await this.#occupancy.settle(this.#open, kind, names)
  }

  async count (group: string): Promise<number> { return await this.#open.count(group) }

  async members (group: string): Promise<Member[]> { return await this.#open.members(group) }

  stats (): Record<string, number> {
    if (this.#links === undefined || this.#writer === undefined) return {}
    const partitions = [...this.#places.values()].map(({ partition }) => partition.stats())
    return {
      ...sumStats([...partitions, ...this.#writer.stats(), this.#reaper?.stats() ?? {}]),
      ...this.#links.stats(),
      redisUp: Number(this.#links.complete),
      partitionsOpen: partitions.length
    }
  }

  async close (): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#booting.reject(new WebsocketGroupsError('WSG_CLOSED'))
    this.#stateReport.close()
    this.#claim?.close()
    this.#writer?.close()
    await Promise.all([this.#reaper?.close(), ...Array.from(this.#places.values(), async ({ partition }) => await partition.close())])
    await this.#links?.close()
  }

  get #open (): ClusterWriter {
    if (this.#writer !== undefined && !this.#closed) return this.#writer
    throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', notOpen)
  }

  #indexOf (target: Target): number { return this.#writer?.partitionOf(target) ?? 0 }

  #of (target: Target): Place {
    return this.#place(this.#open.partitionOf(target))
  }

  get #registered (): boolean { return this.#home.every(({ partition }) => partition.lease.active) }

  #place (index: number): Place {
    const known = this.#places.get(index)
    if (known !== undefined) return known
    const [command, subscribe, keys] = [this.#links?.command[index], this.#links?.subscribe[index], this.#keys[index]]
    if (command === undefined || subscribe === undefined || keys === undefined || this.#local === undefined) {
      throw new RangeError(`there is no partition ${index}`)
    }
    const local = new PartitionInstance(this.#local, () => this.#changed())
    const place = { local, partition: new Partition({ command, subscribe }, this.#options, keys, local, this.#open.of(index)) }
    this.#places.set(index, place)
    return place
  }

  #failed (error: Error): void {
    if (hasCode(error, 'WSG_REDIS_REFUSED', 'WSG_REDIS_UNSUPPORTED', 'WSG_OPTION_INVALID')) this.#booting.reject(error)
    else if (isFinal(error)) this.#booting.reject(refused(error))
    this.#local?.log.debug({ err: error }, 'Redis link error')
  }

  #changed (): void {
    const links = this.#links
    if (links === undefined || this.#closed) return
    void this.#claim?.make()
    if (this.#booted) this.#stateReport.look()
    else void this.#checkMasters(links)
  }

  /** Ends the boot once all works. Checks rights on all masters, as a missing one would show only when a partition there is used. */
  async #checkMasters (links: ClusterLinks): Promise<void> {
    try {
      // A look that began while a master was out says nothing of the rights there.
      const [complete, missing] = [links.complete, await missingOnMasters(links.command, this.#keys, 'instance')]
      if (missing.length > 0) this.#booting.reject(refusedRights(missing))
      else if (complete && this.state === 'up') this.#booting.resolve()
    } catch (error) {
      this.#failed(error as Error)
    }
  }
}

const everyone: Target = { kind: 'all', name: '' }
const groupTarget = (name: string): Target => ({ kind: 'group', name })
