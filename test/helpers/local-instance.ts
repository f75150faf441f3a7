import type { Test } from 'tap'
import type { Envelope, LocalInstance, Target } from '../../lib/backplane/backplane.ts'
import { silentLog } from './silent-log.ts'
import { RedisBackplane, type RedisBackplaneOptions } from '../../lib/backplane/redis/index.ts'
import { drawId } from '../../lib/ids.ts'
import type { Member } from '../../lib/types.ts'

/** An instance reduced to its tables, to be served by a Redis backplane in this process: for what whole applications cannot show. */
export class Local implements LocalInstance {
  readonly instanceId: string
  readonly label = ''
  readonly log = silentLog
  readonly backplane: RedisBackplane
  readonly received: Envelope[] = []
  readonly #groups = new Map<string, Map<string, Member>>()
  /** How many connections each user has here. */
  readonly users = new Map<string, number>()
  #sequence = 0

  constructor (options: Partial<RedisBackplaneOptions> & Pick<RedisBackplaneOptions, 'redis'>, instanceId = drawId()) {
    this.instanceId = instanceId
    this.backplane = new RedisBackplane({
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

  deliver (envelope: Envelope): void { this.received.push(envelope) }
  gap (): void {}
  logged (group: string): boolean { return group.startsWith('logged') }
  member (group: string, connectionId: string): Member | undefined { return this.#groups.get(group)?.get(connectionId) }
  memberIds (group: string): Iterable<string> { return this.#groups.get(group)?.keys() ?? [] }
  connectionsOf (userId: string): number { return this.users.get(userId) ?? 0 }
  groups (): Iterable<string> { return this.#groups.keys() }
  stateChanged (): void {}

  async start (t: Test): Promise<this> {
    t.teardown(async () => await this.backplane.close())
    await this.backplane.start(this)
    return this
  }

  async publish (target: Target, text: string): Promise<number | undefined> {
    return await this.backplane.publish([target], {
      origin: this.instanceId,
      sequence: ++this.#sequence,
      kind: 'message',
      target,
      shared: false,
      except: [],
      command: '',
      binary: false,
      payload: Buffer.from(text)
    })
  }

  async join (group: string, connectionId: string): Promise<void> {
    const members = this.#groups.get(group) ?? new Map<string, Member>()
    this.#groups.set(group, members.set(connectionId, { connectionId, instanceId: this.instanceId, joinedAt: 0 }))
    await this.backplane.syncMember(group, connectionId)
  }
}

export const group = (name: string): Target => ({ kind: 'group', name })
