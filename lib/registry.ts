import type { FastifyBaseLogger } from 'fastify'
import type { Backplane, Envelope, LocalInstance } from './backplane/backplane.ts'
import { LoggedPublish } from './delivery/logged-publish.ts'
import { Broadcaster } from './delivery/broadcaster.ts'
import { CloseCode } from './protocol/close-codes.ts'
import { LocalConnection, type ConnectionInit } from './connection/connection.ts'
import { WebsocketGroupsError } from './errors.ts'
import { Expiry } from './connection/expiry.ts'
import { isUserId } from './group-name.ts'
import { Heartbeat } from './connection/heartbeat.ts'
import { Hub } from './hub/hub.ts'
import { connectionIdOf } from './ids.ts'
import { EchoFilter } from './delivery/echo.ts'
import { instanceLog } from './logging.ts'
import { GroupLogs } from './options/group-logs.ts'
import { assertBlockMs, Blocklist } from './groups/blocklist.ts'
import { Gate } from './groups/gate.ts'
import type { Admission } from './hub/admissions.ts'
import { IntakeBudget } from './connection/intake-budget.ts'
import { Membership } from './groups/membership.ts'
import { Metrics } from './metrics.ts'
import type { ResolvedOptions } from './options/resolve.ts'
import { FlushScheduler } from './connection/outbound/flush-scheduler.ts'
import { Presence } from './presence/presence.ts'
import { GroupReads } from './groups/reads.ts'
import { LogCache } from './delivery/log-cache.ts'
import { ConnectionCommands } from './groups/remote.ts'
import { Replay } from './delivery/replay.ts'
import { Backlog } from './delivery/backlog.ts'
import { EnvelopeFactory } from './delivery/envelopes.ts'
import { drainConnections } from './connection/drain.ts'
import type {
  AnyConnection, BlockOptions, BlockTarget, BroadcastOptions, BroadcastResult, CloseOptions, Connection, Data, Health, History, HistoryOptions, Identity, JoinOptions, JoinResult, MemberList, ReadOptions, Registry, Stats
} from './types.ts'

/** What a route knows of a socket it opens. */
export type OpenInit = Pick<ConnectionInit, 'socket' | 'params' | 'identity' | 'log' | 'callbacks' | 'framed'> & {
  /** What the upgrade was admitted with. */
  readonly admission: Admission | undefined
}

/** The public registry: this instance's hub joined to the other instances by a backplane. */
export class GroupRegistry implements Registry {
  readonly metrics = new Metrics()
  readonly #options: ResolvedOptions
  readonly #backplane: Backplane
  readonly #hub = new Hub()
  readonly #envelopes = new EnvelopeFactory(id => this.#hub.connections.get(id))
  readonly #echoes: EchoFilter
  readonly #scheduler: FlushScheduler
  readonly #intake: IntakeBudget
  readonly #logs: GroupLogs
  readonly #cache = new LogCache()
  readonly #presence: Presence
  readonly #membership: Membership
  readonly #broadcaster: Broadcaster
  readonly #reads: GroupReads
  readonly #commands: ConnectionCommands
  readonly #blocks: Blocklist
  readonly gate: Gate
  readonly #heartbeat: Heartbeat
  readonly #expiry: Expiry
  readonly #log: FastifyBaseLogger
  #opened = 0
  #phase: 'booting' | 'open' | 'closing' = 'booting'
  #drained: Promise<void> | undefined

  constructor (options: ResolvedOptions, backplane: Backplane, log: FastifyBaseLogger) {
    this.#options = options
    this.#backplane = backplane
    this.#log = instanceLog(log, this.instanceId, options.instanceLabel)
    this.#echoes = new EchoFilter(this.#hub, this.#envelopes, this.metrics, this.#log)
    this.#scheduler = new FlushScheduler(options, this.metrics, this.#log)
    this.#intake = new IntakeBudget(options.limits, this.metrics)
    this.#logs = new GroupLogs(options)
    this.#presence = new Presence(backplane, this.#envelopes, options.presenceGraceMs)
    const userId = (identity: Identity | null): string | undefined => this.#userIdOf(identity)
    this.#blocks = new Blocklist(() => this.#hub.connections.values(), backplane, { userId, tokenId: options.tokenId }, this.metrics)
    this.gate = new Gate(options, backplane, this.#blocks, userId, this.metrics)
    const replays = new Replay(this.#hub, backplane, new Backlog(backplane, this.#cache, this.#logs))
    this.#membership = new Membership(this.#hub, backplane, replays, this.#presence, { ...options, policy: options.outage.join }, this.metrics)
    this.#broadcaster = new Broadcaster(this.#hub, backplane, new LoggedPublish(backplane, this.#logs), this.#envelopes, this.#echoes, options.outage.broadcast, this.#scheduler, this.metrics)
    this.#reads = new GroupReads(this.#hub, backplane, options.outage.reads)
    // A remote join may itself take `joinTimeoutMs` on the instance that is asked.
    const requestTimeoutMs = options.joinTimeoutMs + options.operationTimeoutMs
    this.#commands = new ConnectionCommands(this.#hub, this.#membership, backplane, this.#envelopes, requestTimeoutMs, this.#blocks, this.metrics)
    this.#heartbeat = new Heartbeat(options.heartbeatIntervalMs, () => this.#hub.connections.values(), this.metrics)
    this.#expiry = new Expiry(this.metrics)
  }

  get instanceId (): string {
    return this.#envelopes.origin
  }

  /** Resolves when the backplane works, or when policy allows to go on without it. */
  async start (): Promise<void> {
    try {
      await this.#backplane.start(this.#asLocalInstance())
      if (this.#backplane.state === 'down' && this.#options.outage.boot === 'fail') {
        throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', `at boot, after ${this.#options.bootTimeoutMs} ms: ${this.#backplane.problems.join('; ')}`)
      }
    } catch (error) {
      await this.#backplane.close()
      // Closed while it booted: that is no failure, and would make app.close() reject.
      if (this.#phase === 'closing') return
      throw error
    }
    // Both stay wanted when the backplane is out now.
    const wanted = [{ kind: 'instance', name: this.instanceId }, { kind: 'all', name: '' }] as const
    await Promise.allSettled(wanted.map(async target => await this.#backplane.subscribe(target)))
    await this.#blocks.load()
    if (this.#phase === 'closing') return
    this.#heartbeat.start()
    this.#phase = 'open'
    const { name: backplane, state, problems } = this.#backplane
    if (state === 'up') this.#log.info({ backplane }, 'websocket groups ready')
    else this.#log.warn({ backplane, state, problems }, 'websocket groups ready, but the backplane is not: policies for outages apply')
  }

  /** A route upgraded a socket. */
  open ({ admission: admitted, ...init }: OpenInit): LocalConnection {
    const admission = admitted ?? this.gate.admitUncounted(init.identity)
    const { userId } = admission
    const connection = new LocalConnection({
      ...init,
      id: connectionIdOf(this.instanceId, ++this.#opened),
      userId,
      limits: this.#options,
      intake: this.#intake,
      scheduler: this.#scheduler,
      metrics: this.metrics,
      enter: connection => this.#membership.connectionOpened(connection),
      release: async connection => {
        this.#expiry.remove(connection)
        this.gate.leave(admission)
        await this.#membership.connectionClosed(connection)
      }
    })
    this.#expire(connection)
    // Blocked since it was admitted.
    if (init.identity !== null && this.#blocks.covers(init.identity)) connection.closeForFault(CloseCode.OtherUser, 'access was revoked')
    // It passed the guard before the shutdown began, and is in no batch of it.
    if (this.#phase === 'closing') connection.closeForFault(this.#options.shutdownCode)
    return connection
  }

  /** A fresh token came on an open connection. `false` when it is another user's, and nothing changed. */
  renew (connectionId: string, identity: Identity): boolean {
    const connection = this.#hub.connections.get(connectionId)
    if (connection === undefined || this.#userIdOf(identity) !== connection.userId) return false
    if (this.#blocks.covers(identity)) throw new WebsocketGroupsError('WSG_BLOCKED')
    connection.identity = identity
    this.#expire(connection)
    return true
  }

  async join (connection: AnyConnection | string, group: string, options?: JoinOptions): Promise<JoinResult> {
    return await this.#commands.join(connection, group, options)
  }

  async leave (connection: AnyConnection | string, group: string): Promise<boolean> {
    return await this.#commands.leave(connection, group)
  }

  async leaveAll (connection: AnyConnection | string): Promise<number> {
    return await this.#commands.leaveAll(connection)
  }

  async groups (connection: AnyConnection | string): Promise<readonly string[]> {
    return await this.#commands.groups(connection)
  }

  async broadcastToGroup (group: string | readonly string[], data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#broadcaster.toGroups(group, data, options)
  }

  async broadcastToAll (data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#broadcaster.toAll(data, options)
  }

  async sendToUser (userId: string, data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#broadcaster.toUser(userId, data, options)
  }

  async sendTo (connectionId: string, data: Data): Promise<boolean> {
    return await this.#commands.send(connectionId, data)
  }

  async disconnect (target: AnyConnection | string | { readonly userId: string }, options: CloseOptions = {}): Promise<number> {
    const { code = CloseCode.Normal, reason = '' } = options
    if (typeof target === 'object' && !('id' in target)) return await this.#commands.disconnectUser(target.userId, code, reason)
    return await this.#commands.disconnect(target, code, reason)
  }

  async block (target: BlockTarget, { forMs }: BlockOptions): Promise<number> {
    assertBlockMs(forMs)
    return await this.#commands.block(target, forMs)
  }

  async unblock (target: BlockTarget): Promise<void> {
    await this.#commands.block(target, 0)
  }

  get (connectionId: string): Connection | undefined {
    return this.#hub.connections.get(connectionId)
  }

  all (): Connection[] {
    return [...this.#hub.connections.values()]
  }

  filter (predicate: (connection: Connection) => boolean): Connection[] {
    return this.all().filter(predicate)
  }

  count (): number {
    return this.#hub.connections.size
  }

  async groupCount (group: string, options?: ReadOptions): Promise<number> {
    return await this.#reads.count(group, options)
  }

  async members (group: string, options?: ReadOptions): Promise<MemberList> {
    return await this.#reads.members(group, options)
  }

  async history (group: string, options?: HistoryOptions): Promise<History> {
    return await this.#reads.history(group, options)
  }

  /** As `health().ready`, without the rest of it. */
  get ready (): boolean {
    return this.#phase === 'open' && (this.#options.outage.upgrade === 'accept' || this.#backplane.state !== 'down')
  }

  health (): Health {
    const { state, name, problems } = this.#backplane
    return {
      status: this.#phase === 'closing' ? 'closing' : state,
      ready: this.ready,
      instanceId: this.instanceId,
      backplane: name,
      problems: this.#phase === 'closing' ? ['the instance is shutting down', ...problems] : problems
    }
  }

  stats (): Stats {
    return { ...this.metrics, connections: this.#hub.connections.size, groups: this.#hub.groupTotal(), slowConnections: this.#scheduler.slow.size, ...this.gate.stats(), ...this.#intake.stats(), blocked: this.#blocks.size, ...this.#presence.stats(), ...this.#cache.stats(), ...this.#backplane.stats() }
  }

  /** Takes no new connections and closes those there are. Idempotent. */
  async drain (): Promise<void> {
    this.#phase = 'closing'
    this.#drained ??= drainConnections([...this.#hub.connections.values()], this.#options.shutdownCode, this.#options.closeGraceMs)
    await this.#drained
  }

  async close (): Promise<void> {
    await this.drain()
    this.#heartbeat.stop()
    this.#expiry.stop()
    this.#commands.close()
    this.#presence.close()
    await this.#backplane.close()
  }

  #asLocalInstance (): LocalInstance {
    return {
      instanceId: this.instanceId,
      label: this.#options.instanceLabel ?? '',
      log: this.#log,
      deliver: envelope => this.#deliver(envelope),
      gap: (group, reason, position, epoch) => {
        this.#cache.forget(group)
        this.#hub.announceGap(group, { reason, position, epoch })
      },
      logged: group => this.#logs.has(group),
      member: (group, connectionId) => this.#hub.member(group, connectionId),
      memberIds: group => this.#hub.memberIds(group),
      connectionsOf: userId => this.gate.connectionsOf(userId),
      groups: () => this.#hub.groups(),
      membersLost: () => this.#presence.announceResync(),
      stateChanged: () => {
        const { state, problems } = this.#backplane
        if (state !== 'up') return this.#log.warn({ state, problems }, 'backplane trouble')
        this.#log.info('backplane is up')
        // Blocks of others did not reach this instance meanwhile.
        void this.#blocks.load()
        // This instance's members are stored again, which those who read the lists before do not know.
        this.#presence.announceResync()
      }
    }
  }

  #deliver (envelope: Envelope): void {
    if (envelope.kind === 'presence') return this.#presence.receive(envelope)
    if (envelope.kind !== 'message') return this.#commands.receive(envelope)
    this.#cache.push(envelope)
    this.#echoes.receive(envelope)
  }

  #expire (connection: LocalConnection): void {
    const expiresAt = connection.identity === null ? undefined : this.#options.expiresAt(connection.identity)
    if (expiresAt === undefined) this.#expiry.remove(connection)
    else this.#expiry.add(connection, expiresAt)
  }

  #userIdOf (identity: Identity | null): string | undefined {
    const userId = identity === null ? undefined : this.#options.userId(identity)
    if (userId === undefined || isUserId(userId)) return userId
    this.#log.warn('the identity has a user id that is no non-empty string of at most 255 bytes: sendToUser will not reach it')
    return undefined
  }
}
