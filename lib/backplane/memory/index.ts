import { WebsocketGroupsError } from '../../errors.ts'
import { copyToKeep } from '../../kept-bytes.ts'
import type { Member } from '../../types.ts'
import type {
  Appended, AppendTarget, Backplane, Block, Envelope, LocalInstance, LogPage, LogPosition, PresenceChange, Presences, Revocation,
  StreamStore, Target
} from '../backplane.ts'
import { MemoryBlocks } from './blocks.ts'
import { MemoryLogs } from './log.ts'
import { MemoryOccupancy } from './occupancy.ts'
import { MemoryRevocations } from './revocations.ts'
import { MemoryStreams } from './streams.ts'

/** Joins several instances of one process, as a Redis would join several processes. */
export interface MemoryCluster {
  /** A backplane for one more instance: `app.register(websocketGroups, { backplane: cluster.backplane() })`. */
  backplane (): Backplane
}

export function memoryCluster (): MemoryCluster {
  const bus = newBus()
  return { backplane: () => new MemoryBackplane(bus) }
}

/** What the instances of one cluster share. */
interface MemoryBus {
  readonly instances: Set<MemoryBackplane>
  readonly logs: MemoryLogs
  readonly blocks: MemoryBlocks
  readonly occupancy: MemoryOccupancy
  readonly revocations: MemoryRevocations
  readonly streams: MemoryStreams
  secret: string | undefined
}

export function newBus (): MemoryBus {
  return {
    instances: new Set(),
    logs: new MemoryLogs(),
    blocks: new MemoryBlocks(),
    occupancy: new MemoryOccupancy(),
    revocations: new MemoryRevocations(),
    streams: new MemoryStreams(),
    secret: undefined
  }
}

/** The backplane inside one process: it runs when no Redis is configured, and joins the instances of a `memoryCluster`. */
export class MemoryBackplane implements Backplane {
  readonly name = 'memory'
  readonly problems: readonly string[] = []
  readonly localHistory = true
  readonly #bus: MemoryBus
  readonly #instances: Set<MemoryBackplane>
  readonly #logs: MemoryLogs
  readonly #wanted = new Set<string>()
  /** How far the log of each subscribed group was delivered. */
  readonly #delivered = new Map<string, LogPosition>()
  #local: LocalInstance | undefined

  constructor (bus: MemoryBus = newBus()) {
    this.#bus = bus
    this.#instances = bus.instances
    this.#logs = bus.logs
  }

  get state (): 'up' | 'down' {
    return this.#instances.has(this) ? 'up' : 'down'
  }

  async start (local: LocalInstance): Promise<void> {
    for (const { instanceId } of this.#locals()) {
      if (instanceId === local.instanceId) throw new WebsocketGroupsError('WSG_INSTANCE_ID_TAKEN', instanceId)
    }
    this.#local = local
    this.#instances.add(this)
  }

  async subscribe (target: Target): Promise<void> {
    if (this.#wanted.has(key(target))) return
    this.#wanted.add(key(target))
    if (target.kind === 'group') this.#delivered.set(target.name, this.#logs.end(target.name))
  }

  unsubscribe (target: Target): void {
    this.#wanted.delete(key(target))
    if (target.kind === 'group') this.#delivered.delete(target.name)
  }

  interrupted (): boolean {
    return false
  }

  async publish (targets: readonly Target[], envelope: Envelope): Promise<number> {
    this.#assertUp()
    const payload = Buffer.from(envelope.payload)     // a copy: the caller may reuse its bytes once this call returned
    return this.#send(targets.map(target => ({ ...envelope, target, payload })))
  }

  async append (targets: readonly AppendTarget[], envelope: Envelope, key?: string): Promise<Appended> {
    this.#assertUp()
    const payload = copyToKeep(envelope.payload)
    const { copies, positions, duplicate, logLengths } = this.#logs.append(targets, { ...envelope, payload }, key)
    if (!duplicate) this.#send(copies)
    return { positions, duplicate, queued: false, logLengths }
  }

  async history (group: string, since: LogPosition | undefined, limit: number): Promise<LogPage> {
    this.#assertUp()
    return this.#logs.read(group, since, limit)
  }

  get streams (): StreamStore {
    // Each call looks the instance up anew, because the producers of streams keep this store.
    const streams = (): MemoryStreams => {
      this.#assertUp()
      return this.#bus.streams
    }
    return {
      write: async write => streams().write(write, () => {
        this.#send([{ ...write.envelope, target: { kind: 'group', name: write.group } }])
      }),
      read: async (name, from) => streams().read(name, from),
      list: async group => streams().list(group)
    }
  }

  position (group: string): LogPosition | undefined {
    return this.#delivered.get(group)
  }

  async secret (candidate: string): Promise<string> {
    return (this.#bus.secret ??= candidate)
  }

  async syncMember (): Promise<void> {
    // Nothing to store: reads pull the memberships from the instances themselves.
  }

  async syncUser (userId: string): Promise<number> {
    this.#assertUp()
    let elsewhere = 0
    for (const instance of this.#instances) if (instance !== this) elsewhere += instance.#local?.connectionsOf(userId) ?? 0
    return elsewhere
  }

  async block (name: string, forMs: number): Promise<boolean> {
    this.#assertUp()
    return this.#bus.blocks.set(name, forMs)
  }

  async blocks (): Promise<readonly Block[]> {
    this.#assertUp()
    return this.#bus.blocks.list()
  }

  async revoke (group: string, names: readonly string[], revocation: Revocation, forMs: number): Promise<void> {
    this.#assertUp()
    this.#bus.revocations.set(group, names, revocation, forMs)
  }

  async revoked (group: string, names: readonly string[]): Promise<Revocation | undefined> {
    this.#assertUp()
    return this.#bus.revocations.latest(group, names)
  }

  async settle (kind: Presences, names: readonly string[] | undefined): Promise<readonly PresenceChange[]> {
    this.#assertUp()
    const locals = [...this.#locals()]
    return this.#bus.occupancy.settle(kind, names, name => locals.some(local => {
      return kind === 'user' ? local.connectionsOf(name) > 0 : local.memberIds(name)[Symbol.iterator]().next().done !== true
    }))
  }

  async count (group: string): Promise<number> {
    return (await this.members(group)).length
  }

  async members (group: string): Promise<Member[]> {
    this.#assertUp()
    const members: Member[] = []
    for (const local of this.#locals()) {
      for (const id of local.memberIds(group)) {
        const member = local.member(group, id)
        if (member !== undefined) members.push(member)
      }
    }
    return members
  }

  stats (): Record<string, number> {
    return { backplaneSubscriptions: this.#wanted.size, ...this.#logs.stats() }
  }

  async close (): Promise<void> {
    this.#instances.delete(this)
    this.#wanted.clear()
    this.#delivered.clear()
  }

  /** Returns how many instances take the copies. */
  #send (copies: readonly Envelope[]): number {
    const sent = copies.map(copy => ({ copy, takers: [...this.#instances].filter(instance => instance.#wanted.has(key(copy.target))) }))
    // Deliver later, never within the call: the sender sees its own message when the others do, as with any backplane.
    queueMicrotask(() => {
      for (const { copy, takers } of sent) {
        for (const instance of takers) instance.#receive(copy)
      }
    })
    return new Set(sent.flatMap(({ takers }) => takers)).size
  }

  #assertUp (): void {
    if (this.state === 'down') throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'the backplane is not started, or is closed')
  }

  * #locals (): Iterable<LocalInstance> {
    for (const instance of this.#instances) if (instance.#local !== undefined) yield instance.#local
  }

  /** Takes an envelope that was sent while this instance was subscribed, because the sender has counted this instance. */
  #receive (envelope: Envelope): void {
    const { target, position } = envelope
    if (!this.#instances.has(this)) return
    // The instance unsubscribed meanwhile: the log is not followed any more.
    if (position !== undefined && !this.#wanted.has(key(target))) return
    const delivered = this.#delivered.get(target.name)
    // The message was appended before this instance subscribed again.
    if (position !== undefined && position.epoch === delivered?.epoch && position.offset <= delivered.offset) return
    if (position !== undefined) this.#delivered.set(target.name, position)
    this.#local?.deliver(envelope)
  }
}

function key ({ kind, name }: Target): string {
  return `${kind}:${name}`
}
