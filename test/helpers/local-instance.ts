import type { Test } from 'tap'
import type { Envelope, GapReason, LocalInstance, LogPosition, Target } from '../../lib/backplane/backplane.ts'
import { messageEnvelope } from './envelopes.ts'
import { silentLog } from './loggers.ts'
import { RedisBackplane, type RedisBackplaneOptions } from '../../lib/backplane/redis/index.ts'
import { drawId } from '../../lib/ids.ts'
import type { Member } from '../../lib/types.ts'

/** A backplane with the settings of tests: long lives, short waits. */
export function redisBackplane (options: Partial<RedisBackplaneOptions> & Pick<RedisBackplaneOptions, 'redis'>): RedisBackplane {
  return new RedisBackplane({
    keyPrefix: 'wsg:',
    operationTimeoutMs: 500,
    joinTimeoutMs: 1_000,
    bootTimeoutMs: 5_000,
    leaseMs: 15_000,
    lingerMs: 100,
    whenDown: 'reject',
    ...options
  })
}

/** An instance that nobody is connected to, and that ignores what it is given. Others extend it. */
export class EmptyInstance implements LocalInstance {
  readonly instanceId: string
  readonly label = ''
  readonly log = silentLog

  constructor (instanceId = drawId()) {
    this.instanceId = instanceId
  }

  deliver (_envelope: Envelope): void {}
  returned (_group: string, _position: LogPosition): void {}

  gap (_group: string, _reason: GapReason, _position: LogPosition): void {}
  logged (_group: string): boolean { return false }
  member (_group: string, _connectionId: string): Member | undefined { return undefined }
  memberIds (_group: string): Iterable<string> { return [] }
  connectionsOf (_userId: string): number { return 0 }
  groups (): Iterable<string> { return [] }
  stateChanged (): void {}
}

/** An instance reduced to its tables, to be served by a Redis backplane in this process: for what whole applications cannot show. */
export class Local extends EmptyInstance {
  readonly backplane: RedisBackplane
  readonly received: Envelope[] = []
  readonly #groups = new Map<string, Map<string, Member>>()
  /** How many connections each user has here. */
  readonly users = new Map<string, number>()
  #sequence = 0

  constructor (options: Parameters<typeof redisBackplane>[0], instanceId?: string) {
    super(instanceId)
    this.backplane = redisBackplane(options)
  }

  override deliver (envelope: Envelope): void { this.received.push(envelope) }
  override logged (group: string): boolean { return group.startsWith('logged') }
  override member (group: string, connectionId: string): Member | undefined { return this.#groups.get(group)?.get(connectionId) }
  override memberIds (group: string): Iterable<string> { return this.#groups.get(group)?.keys() ?? [] }
  override connectionsOf (userId: string): number { return this.users.get(userId) ?? 0 }
  override groups (): Iterable<string> { return this.#groups.keys() }

  async start (t: Test): Promise<this> {
    t.teardown(async () => await this.backplane.close())
    await this.backplane.start(this)
    return this
  }

  async publish (target: Target, text: string): Promise<number | undefined> {
    return await this.backplane.publish([target], messageEnvelope(text, { origin: this.instanceId, sequence: ++this.#sequence, target }))
  }

  async leave (group: string, connectionId: string): Promise<void> {
    const members = this.#groups.get(group)
    members?.delete(connectionId)
    if (members?.size === 0) this.#groups.delete(group)
    await this.backplane.syncMember(group, connectionId)
  }

  async join (group: string, connectionId: string): Promise<void> {
    const members = this.#groups.get(group) ?? new Map<string, Member>()
    this.#groups.set(group, members.set(connectionId, { connectionId, instanceId: this.instanceId, joinedAt: 0 }))
    await this.backplane.syncMember(group, connectionId)
  }

  /** Joins one connection to each of the groups, whose messages then come here. */
  async enterAll (names: readonly string[]): Promise<void> {
    await Promise.all(names.map(async name => {
      await this.backplane.subscribe(group(name))
      await this.join(name, `${this.instanceId}.${name}`)
    }))
  }

  async counts (names: readonly string[]): Promise<number[]> {
    return await Promise.all(names.map(async name => await this.backplane.count(name)))
  }

  /** Whether each group has so many members. Not while one cannot be asked for, as right after a promotion. */
  async hasCounts (names: readonly string[], members: number): Promise<boolean> {
    return await this.counts(names).then(counts => counts.every(count => count === members), () => false)
  }
}

export const group = (name: string): Target => ({ kind: 'group', name })
