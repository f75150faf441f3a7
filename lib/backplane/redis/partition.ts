import { hasCode, WebsocketGroupsError } from '../../errors.ts'
import { oncePerMinute } from '../../logging.ts'
import type { BackplaneState } from '../../types.ts'
import type { LocalInstance, LogPosition, Target } from '../backplane.ts'
import { decode, isLogged, previousNonce } from './envelope.ts'
import type { Keys } from './keys.ts'
import { AppendQueue, type WhenDown } from './log/append-queue.ts'
import { Lease } from './membership/lease.ts'
import { Link, type RedisSource } from './link/link.ts'
import { MemberStore } from './membership/store.ts'
import { MemberReconciler } from './membership/reconciler.ts'
import { PubSubProbe } from './link/pubsub-probe.ts'
import { UserCounts } from './membership/users.ts'
import { LogFollowers } from './log/followers.ts'
import { checkServer, isFinal, refused } from './link/server.ts'
import { Subscriptions } from './link/subscriptions.ts'

export interface PartitionOptions {
  readonly redis: RedisSource
  readonly operationTimeoutMs: number
  readonly joinTimeoutMs: number
  readonly leaseMs: number
  readonly lingerMs: number
  /** What happens to an append while Redis is out. */
  readonly whenDown: WhenDown
}

/** How often all memberships are written anew, against evicted keys and the safety TTL. */
const refreshMs = 3_600_000
/** How often the ends of quiet logs are compared with what was delivered. */
const sweepMs = 60_000
const retryMs = 1_000
/** With the half second that each link may take to say goodbye it is less than the two that close promises. */
const closeMs = 1_400

/** What one instance has in Redis between start and close: two links, its subscriptions, its members and its lease. */
export class Partition {
  readonly command: Link
  readonly subscriptions: Subscriptions
  readonly members: MemberReconciler
  readonly users: UserCounts
  readonly appends: AppendQueue
  readonly #keys: Keys
  /** What may be in trouble while both links work. */
  readonly #parts: ReadonlyArray<{ readonly problem: string | undefined }>
  readonly #followers: LogFollowers
  readonly #probe: PubSubProbe
  readonly #subscribe: Link
  readonly #lease: Lease
  readonly #local: LocalInstance
  readonly #warnBadEnvelope: (fields: object) => void
  readonly #warnNotRegistered: (fields: object) => void
  readonly #refresher: NodeJS.Timeout
  readonly #sweeper: NodeJS.Timeout
  #reported: BackplaneState = 'down'
  #badEnvelopes = 0
  /** The server that the memberships were last compared with. */
  #server: string | undefined
  #recoverTimer: NodeJS.Timeout | undefined
  #closed = false
  #settleBoot: ((error?: Error) => void) | undefined

  constructor (options: PartitionOptions, keys: Keys, local: LocalInstance) {
    const { redis, operationTimeoutMs, joinTimeoutMs, leaseMs, lingerMs, whenDown } = options
    this.#local = local
    this.#keys = keys
    this.#warnBadEnvelope = oncePerMinute(local.log, 'a message in Redis is no envelope of ours: dropped')
    this.#warnNotRegistered = oncePerMinute(local.log, 'Redis answers, but this instance could not register')
    this.command = new Link(redis, 'command', operationTimeoutMs, {
      up: () => {
        this.appends.resume()
        this.#followers.resume()
        void this.#recover()
        // The link may lead to another server now, with other logs.
        void this.#sweep()
      },
      down: () => { this.members.suspend(); this.#report() },
      error: error => this.#failed(error)
    })
    this.#subscribe = new Link(redis, 'subscribe', operationTimeoutMs, {
      up: () => { this.subscriptions.connected(); this.#report() },
      down: () => {
        // After a hang as after a break: only a new connection is sure to be subscribed to what we think.
        this.#subscribe.reset()
        this.subscriptions.disconnected()
        this.#report()
      },
      error: error => this.#failed(error)
    })
    this.subscriptions = new Subscriptions(this.#subscribe, joinTimeoutMs, lingerMs, {
      acked: names => { void this.#followers.subscribed(this.#groupsOf(names)) },
      dropped: name => { for (const group of this.#groupsOf([name])) this.#followers.forget(group) },
      changed: () => this.#report()
    })
    this.appends = new AppendQueue(this.command, keys, whenDown, operationTimeoutMs)
    this.#followers = new LogFollowers(this.command, keys, local, () => this.#report())
    this.#probe = new PubSubProbe(this.command, this.#subscribe, this.subscriptions, keys.channel({ kind: 'instance', name: local.instanceId }))
    const store = new MemberStore(this.command, keys, local, () => {
      this.members.suspend()
      void this.#recover()
    })
    this.members = new MemberReconciler(this.command, store, local, () => this.#report())
    this.users = new UserCounts(this.command, keys, local)
    this.#lease = new Lease(this.command, keys, local, this.members, store, leaseMs, () => this.#report())
    this.#subscribe.redis.on('messageBuffer', (channel: Buffer, bytes: Buffer) => this.#receive(channel, bytes))
    this.#parts = [this.#lease, this.members, this.subscriptions, this.#followers]
    this.#refresher = setInterval(() => {
      this.members.refresh()
      this.users.refresh()
    }, refreshMs).unref()
    this.#sweeper = setInterval(() => { void this.#sweep() }, sweepMs).unref()
  }

  get state (): BackplaneState {
    if (!this.command.up || !this.#subscribe.up) return 'down'
    return this.#parts.every(({ problem }) => problem === undefined) ? 'up' : 'degraded'
  }

  get problems (): readonly string[] {
    const down = [this.command.problem, this.#subscribe.problem].filter(isDefined)
    return down.length > 0 ? down : this.#parts.map(({ problem }) => problem).filter(isDefined)
  }

  /** Resolves once envelopes for the target reach us and, for a group with a log, we know where we stand in it. */
  async subscribe (target: Target): Promise<void> {
    await this.subscriptions.subscribe(this.#keys.channel(target))
    if (target.kind === 'group' && this.#local.logged(target.name)) await this.#followers.open(target.name)
  }

  position (group: string): LogPosition | undefined {
    return this.#followers.position(group)
  }

  follow (group: string, position: LogPosition): void {
    this.#followers.follow(group, position)
  }

  /** Resolves when all works, or after `deadlineMs`. @throws what waiting cannot heal */
  async boot (deadlineMs: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => this.#settleBoot?.(), deadlineMs)
      this.#settleBoot = error => {
        this.#settleBoot = undefined
        clearTimeout(timer)
        if (error === undefined) resolve()
        else reject(error)
      }
    })
    this.#lease.schedule()
    this.#report()
  }

  stats (): Record<string, number> {
    const command = this.command.stats()
    const subscribe = this.#subscribe.stats()
    return {
      ...this.#lease.stats(),
      ...this.appends.stats(),
      ...this.#followers.stats(),
      redisUp: Number(this.command.up && this.#subscribe.up),
      redisTimeouts: command.timeouts + subscribe.timeouts,
      redisReconnects: command.reconnects + subscribe.reconnects,
      channelsWanted: this.subscriptions.wanted,
      channelsSubscribed: this.subscriptions.acked,
      envelopesUnknown: this.#badEnvelopes,
      leaseAgeMs: Math.round(this.#lease.ageMs)
    }
  }

  async close (): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#settleBoot?.(new WebsocketGroupsError('WSG_CLOSED'))
    clearInterval(this.#refresher)
    clearInterval(this.#sweeper)
    this.#probe.close()
    this.#followers.close()
    this.appends.close()
    clearTimeout(this.#recoverTimer)
    let timer: NodeJS.Timeout | undefined
    const deadline = new Promise<void>(resolve => { timer = setTimeout(resolve, closeMs) })
    await Promise.race([this.#giveBack(), deadline])
    clearTimeout(timer)
    await Promise.all([this.command.close(), this.#subscribe.close()])
  }

  async #giveBack (): Promise<void> {
    try {
      // Side by side: a subscribe link that hangs must not use up the time that the other one needs.
      await Promise.all([this.subscriptions.close(), this.users.close(), this.members.close().then(async () => await this.#lease.close())])
    } catch (error) {
      this.#local.log.warn({ err: error }, 'memberships were not given back: the other instances remove them when the lease is over')
    }
  }

  /** The command link works (again), or this instance was fenced off. Tries until it succeeds or the link breaks. */
  async #recover (): Promise<void> {
    clearTimeout(this.#recoverTimer)
    try {
      const server = await checkServer(this.command)
      await this.#lease.renew()
      // Another server may have been a replica that lacked the latest writes, a restarted one may have lost them.
      this.members.resume(server !== this.#server)
      this.users.resume(server !== this.#server)
      this.#server = server
      this.#report()
    } catch (error) {
      if (hasCode(error, 'WSG_REDIS_UNSUPPORTED', 'WSG_INSTANCE_ID_TAKEN')) this.#settleBoot?.(error as Error)
      if (this.#closed || !this.command.up) return              // the link's return starts over
      this.#warnNotRegistered({ err: error })
      clearTimeout(this.#recoverTimer)
      this.#recoverTimer = setTimeout(() => { if (this.command.up) void this.#recover() }, retryMs).unref()
    }
  }

  async #sweep (): Promise<void> {
    try {
      await this.#followers.sweep()
    } catch (error) {
      this.#local.log.debug({ err: error }, 'quiet logs could not be compared; the next sweep will')
    }
  }

  #groupsOf (channels: readonly string[]): string[] {
    return channels.map(name => this.#keys.groupOf(name)).filter(group => group !== undefined)
  }

  #failed (error: Error): void {
    if (isFinal(error)) this.#settleBoot?.(refused(error))
    this.#local.log.debug({ err: error }, 'Redis link error')
  }

  #receive (channel: Buffer, bytes: Buffer): void {
    if (this.#probe.received(bytes)) return
    this.#subscribe.heard()
    const envelope = decode(bytes)
    if (envelope === undefined) {
      this.#badEnvelopes++
      return this.#warnBadEnvelope({ channel: channel.toString(), bytes: bytes.length })
    }
    if (isLogged(envelope)) this.#followers.receive(envelope, previousNonce(bytes))
    else this.#local.deliver(envelope)
  }

  /** Tells of a change of state once, whatever caused it. */
  #report (): void {
    const { state } = this
    if (state === 'up') this.#settleBoot?.()
    // What is not complete yet at boot is no trouble.
    if (state === this.#reported || this.#closed || this.#settleBoot !== undefined) return
    this.#reported = state
    this.#local.stateChanged()
  }
}

function isDefined (problem: string | undefined): problem is string {
  return problem !== undefined
}
