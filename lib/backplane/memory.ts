import { WebsocketGroupsError } from '../errors.ts'
import type { Member } from '../types.ts'
import type { Backplane, Envelope, LocalInstance, Target } from './backplane.ts'

/** Joins several instances of one process, as a Redis would join several processes. */
export interface MemoryCluster {
  /** A backplane for one more instance: `app.register(websocketGroups, { backplane: cluster.backplane() })`. */
  backplane (): Backplane
}

export function memoryCluster (): MemoryCluster {
  const instances = new Set<MemoryBackplane>()
  return { backplane: () => new MemoryBackplane(instances) }
}

/** The contract of a backplane inside one process; also what runs when no Redis is configured. */
export class MemoryBackplane implements Backplane {
  readonly name = 'memory'
  readonly problems: readonly string[] = []
  readonly #instances: Set<MemoryBackplane>
  readonly #wanted = new Set<string>()
  #local: LocalInstance | undefined

  constructor (instances = new Set<MemoryBackplane>()) {
    this.#instances = instances
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
    this.#wanted.add(key(target))
  }

  unsubscribe (target: Target): void {
    this.#wanted.delete(key(target))
  }

  interrupted (): boolean {
    return false
  }

  async publish (targets: readonly Target[], envelope: Envelope): Promise<number> {
    this.#assertUp()
    const payload = Buffer.from(envelope.payload)     // a copy: the caller may reuse its bytes once this call returned
    const copies = targets.map(target => ({ ...envelope, target, payload }))
    const takers = new Set<MemoryBackplane>()
    for (const { target } of copies) {
      for (const instance of this.#instances) if (instance.#wanted.has(key(target))) takers.add(instance)
    }
    // Never within the call: the sender sees its own message when the others do, as with any backplane.
    queueMicrotask(() => {
      for (const copy of copies) {
        for (const instance of this.#instances) instance.#receive(copy)
      }
    })
    return takers.size
  }

  async syncMember (): Promise<void> {
    // Nothing to store: reads pull the memberships from the instances themselves.
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
    return { backplaneSubscriptions: this.#wanted.size }
  }

  async close (): Promise<void> {
    this.#instances.delete(this)
    this.#wanted.clear()
  }

  #assertUp (): void {
    if (this.state === 'down') throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'it is not started, or closed')
  }

  * #locals (): Iterable<LocalInstance> {
    for (const instance of this.#instances) if (instance.#local !== undefined) yield instance.#local
  }

  #receive (envelope: Envelope): void {
    if (this.#wanted.has(key(envelope.target))) this.#local?.deliver(envelope)
  }
}

function key ({ kind, name }: Target): string {
  return `${kind}:${name}`
}
