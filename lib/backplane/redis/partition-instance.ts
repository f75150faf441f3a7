import type { FastifyBaseLogger } from 'fastify'
import type { Block, Envelope, GapReason, LocalInstance, LogPosition } from '../backplane.ts'
import type { Member } from '../../types.ts'

/** The instance as one of many partitions sees it: with the groups of that partition alone. */
export class PartitionInstance implements Required<LocalInstance> {
  readonly #local: LocalInstance
  readonly #changed: () => void
  readonly #groups = new Set<string>()

  /** `changed` is called on every change of the partition's state. */
  constructor (local: LocalInstance, changed: () => void) {
    this.#local = local
    this.#changed = changed
  }

  get instanceId (): string { return this.#local.instanceId }
  get label (): string { return this.#local.label }
  get log (): FastifyBaseLogger { return this.#local.log }

  deliver (envelope: Envelope): void { this.#local.deliver(envelope) }

  gap (group: string, reason: GapReason, position: LogPosition, epoch: string, between: readonly string[]): void {
    this.#local.gap(group, reason, position, epoch, between)
  }

  returned (group: string, position: LogPosition): void { this.#local.returned?.(group, position) }

  member (group: string, connectionId: string): Member | undefined { return this.#local.member(group, connectionId) }

  memberIds (group: string): Iterable<string> { return this.#local.memberIds(group) }

  connectionsOf (userId: string): number { return this.#local.connectionsOf(userId) }

  groups (): Iterable<string> { return this.#groups }

  logged (group: string): boolean { return this.#local.logged(group) }

  membersLost (): void { this.#local.membersLost?.() }

  blocks (): Iterable<Block> { return this.#local.blocks?.() ?? [] }

  blocksLost (): void { this.#local.blocksLost?.() }

  async repairing<Result> (group: string, read: () => Promise<Result>): Promise<Result> {
    return await (this.#local.repairing?.(group, read) ?? read())
  }

  stateChanged (): void { this.#changed() }

  /** Called when somebody joined or left a group of this partition. */
  membersChanged (group: string): void {
    const [member] = this.#local.memberIds(group)
    if (member === undefined) this.#groups.delete(group)
    else this.#groups.add(group)
  }
}
