import type { FastifyBaseLogger } from 'fastify'
import type { Backplane, Envelope, LocalInstance } from './backplane/backplane.ts'
import { LocalConnection } from './connection/connection.ts'
import { Departures, drainConnections } from './connection/drain.ts'
import { Expiry } from './connection/expiry.ts'
import { drainSlowly } from './connection/drain-slowly.ts'
import type { RefreshedConnection } from './connection/framed/token-refresh.ts'
import { Heartbeat } from './connection/heartbeat.ts'
import { GapReport } from './delivery/gap-report.ts'
import { inRepairSpan } from './delivery/spans.ts'
import type { ConnectionHost, ConnectionInit } from './connection/init.ts'
import { sharedDeadline } from './deadline.ts'
import { timedOut, WebsocketGroupsError } from './errors.ts'
import { blockedReason } from './groups/blocklist.ts'
import type { Gate } from './groups/gate.ts'
import type { Admission } from './connection/admissions.ts'
import { connectionIdOf } from './ids.ts'
import { logEvent } from './logging.ts'
import type { Metrics } from './metrics.ts'
import { announce } from './metrics/channels.ts'
import { check, integer, maxTimerMs } from './options/rules.ts'
import { isSameUser, readIdentity, type IdentityFacts } from './options/identity.ts'
import type { ResolvedOptions } from './options/resolve.ts'
import { CloseCode } from './protocol/close-codes.ts'
import { GroupRegistry } from './registry.ts'
import type { Identity } from './types.ts'
import { partsOf, type Parts } from './groups/parts.ts'
import { Reports } from './groups/reports.ts'

/** What a route knows about a socket that it opens. */
type OpenInit = Omit<ConnectionInit<LocalConnection>, 'id' | 'userId' | 'address' | 'host'> & {
  /** How the gate counted the upgrade; `undefined` where the gate did not judge the upgrade. */
  readonly admission: Admission | undefined
}
const nobody: IdentityFacts = { userId: undefined, expiresAt: undefined }

/** One running plugin: starts and ends its parts, opens connections, and answers what the backplane asks. */
export class Instance {
  readonly registry: GroupRegistry
  readonly metrics: Metrics
  readonly gate: Gate
  /** The parts that routes use. */
  readonly forRoutes: Pick<Parts, 'commands' | 'presence' | 'streams' | 'stored'>
  readonly #options: ResolvedOptions
  readonly #backplane: Backplane
  readonly #parts: Parts
  readonly #log: FastifyBaseLogger
  readonly #heartbeat: Heartbeat
  readonly #expiry: Expiry
  readonly #departures: Departures
  readonly #gapReport: GapReport
  readonly #host: ConnectionHost<LocalConnection>
  readonly #reports: Reports
  #opened = 0
  #phase: 'booting' | 'open' | 'closing' = 'booting'
  #drained: Promise<unknown> | undefined
  #started = false
  #closed = false
  #drainedSlowly: Promise<void> | undefined
  /** Aborted when the application closes: ends a slow drain. */
  readonly #closing = new AbortController()

  constructor (options: ResolvedOptions, backplane: Backplane, appLog: FastifyBaseLogger) {
    const parts = partsOf(options, backplane, appLog)
    this.#options = options
    this.#backplane = backplane
    this.#parts = parts
    this.#log = parts.log
    this.metrics = parts.metrics
    this.gate = parts.gate
    this.#departures = new Departures(parts.metrics)
    this.forRoutes = parts
    this.#reports = new Reports(parts, options, backplane, () => ({ ready: this.ready, closing: this.#phase === 'closing' }))
    this.registry = new GroupRegistry({
      ...parts, reports: this.#reports, phase: () => this.#registryPhase, drain: this.#drainSlowly.bind(this)
    })
    this.#gapReport = new GapReport(parts.log)
    this.#heartbeat = new Heartbeat(options.heartbeatIntervalMs, () => parts.hub.connections.values(), parts.metrics)
    this.#expiry = new Expiry(parts.metrics)
    this.#host = {
      limits: options,
      intake: parts.intake,
      scheduler: parts.scheduler,
      metrics: parts.metrics,
      enter: connection => parts.membership.connectionOpened(connection),
      greeted: async connection => await parts.membership.clientGreeted(connection),
      setInfo: async (connection, info) => await parts.membership.setInfo(connection, info),
      lost: (group, reason) => this.#gapReport.add(group, reason),
      release: async connection => {
        this.#expiry.remove(connection)
        this.#departures.add(connection)
        parts.gate.leave(connection)
        await parts.membership.connectionClosed(connection)
      }
    }
  }

  /** Whether policy lets this instance take new connections now. */
  get ready (): boolean {
    return this.#phase === 'open' && (this.#options.outage.upgrade === 'accept' || this.#backplane.state !== 'down')
  }

  /**
   * Resolves when the backplane works, or when the policy lets the instance start without it.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE where the policy wants the boot to fail, and what `Backplane.start` throws
   */
  async start (): Promise<void> {
    try {
      const inTime = sharedDeadline(this.#options.bootTimeoutMs)
      await this.#backplane.start(this.#asLocalInstance())
      // If the backplane is out now, both stay wanted and are subscribed later.
      const wanted = [{ kind: 'instance', name: this.#parts.instanceId }, { kind: 'all', name: '' }] as const
      const subscribed = await Promise.allSettled(wanted.map(async target => await inTime(this.#backplane.subscribe(target), timedOut)))
      if (this.#options.outage.boot === 'fail') this.#assertUp(subscribed)
      await inTime(this.#parts.blocks.load(), () => { void this.#parts.blocks.reload() })
    } catch (error) {
      await this.#backplane.close()
      // An app that is closed while it boots has not failed: `app.close()` must not reject.
      if (this.#phase === 'closing') return
      throw error
    }
    this.#started = true
    if (this.#phase === 'closing') return
    this.#heartbeat.start()
    this.metrics.timings.loopLag.start()
    this.#parts.occupancy.start()
    this.#phase = 'open'
    const { backplane, status: state, problems } = this.#reports.health()
    if (state === 'up') logEvent(this.#log, 'ready', { backplane })
    else logEvent(this.#log, 'ready_without_backplane', { backplane, state, problems })
  }

  /**
   * Makes a connection of a socket that a route upgraded. If it throws, there is no connection, and the caller gives the admission back.
   * @throws {WebsocketGroupsError} WSG_IDENTITY_INVALID
   */
  open (init: OpenInit): LocalConnection {
    const { socket, params, identity, log, callbacks, forOperators, route, framed, reauthentication } = init
    const { instanceId, gate, blocks } = this.#parts
    const { userId, expiresAt } = identity === null ? nobody : readIdentity(identity, this.#options)
    // The block may have come after the upgrade was admitted.
    const blocked = identity !== null && blocks.covers(identity)
    const id = connectionIdOf(instanceId, ++this.#opened)
    const { address } = gate.opened(init.admission, userId)
    // Field by field: a spread of objects takes longer than the rest of this method.
    const connection = new LocalConnection({
      socket, id, params, identity, userId, address, log, callbacks, forOperators, route, framed, reauthentication, host: this.#host
    })
    announce('connection.open', () => ({ connection }))
    this.#expiry.add(connection, expiresAt ?? Infinity)
    if (blocked) connection.closeForFault(CloseCode.OtherUser, blockedReason)
    // The upgrade passed the guard before the shutdown began, so no batch of the shutdown has this connection.
    if (this.#phase === 'closing') connection.closeForFault(this.#shutdownCode)
    return connection
  }

  /** Whether a fresh identity belongs to the user of an open connection. */
  isSameUser ({ identity }: RefreshedConnection, fresh: Identity): boolean {
    return isSameUser(identity, fresh, this.#options)
  }

  /** Gives an open connection the identity that came with a fresh token of its user. */
  renew (connection: RefreshedConnection, identity: Identity): void {
    if (this.#parts.blocks.covers(identity)) throw new WebsocketGroupsError('WSG_BLOCKED')
    connection.renewIdentity(identity)
    this.#expiry.add(connection, readIdentity(identity, this.#options).expiresAt ?? Infinity)
  }

  /** Takes no new connections, closes the open ones at once, and lets open streams end meanwhile. Idempotent. */
  async drain (): Promise<void> {
    this.#phase = 'closing'
    this.#reports.health()
    this.#parts.presence.letGo()
    this.#closing.abort()
    await (this.#drained ??= Promise.all([
      drainConnections([...this.#parts.hub.connections.values(), ...this.#departures], this.#shutdownCode, this.#options.closeGraceMs),
      this.#parts.streams.settled(this.#options.closeGraceMs)
    ]))
  }

  /** As `drain`, but spreads the closes over `overMs` milliseconds. @throws {WebsocketGroupsError} WSG_OPTION_INVALID */
  async #drainSlowly (overMs: number): Promise<void> {
    check('drain({ overMs })', overMs, integer(0, maxTimerMs, 'ms'))
    this.#phase = 'closing'
    this.#reports.health()
    this.#parts.presence.letGo()
    const { connections } = this.#parts.hub
    if (this.#drainedSlowly === undefined) logEvent(this.#log, 'drain_started', { connections: connections.size, overMs })
    this.#drainedSlowly ??= drainSlowly(connections.values(), { overMs, graceMs: this.#options.closeGraceMs, signal: this.#closing.signal })
    await this.#drainedSlowly
    logEvent(this.#log, 'drained', { connections: connections.size })
  }

  /** After a slow drain, which closes with 1012, the shutdown closes the rest with the same code. */
  get #shutdownCode (): CloseCode {
    return this.#drainedSlowly === undefined ? this.#options.shutdownCode : CloseCode.ServiceRestart
  }

  async close (): Promise<void> {
    await this.drain()
    this.#heartbeat.stop()
    this.metrics.timings.loopLag.stop()
    this.#expiry.stop()
    this.#gapReport.flush()
    await this.#parts.streams.close()
    this.#closed = true
    const { commands, revocations, presence, blocks, echoes, occupancy } = this.#parts
    for (const part of [commands, revocations, presence, blocks, echoes]) part.close()
    await occupancy.close()
    await this.#backplane.close()
  }

  /** @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE: something that the instance needs does not work */
  #assertUp (subscribed: ReadonlyArray<PromiseSettledResult<void>>): void {
    const { state, problems } = this.#backplane
    const refusals = subscribed.flatMap(result => result.status === 'rejected' ? [(result.reason as Error).message] : [])
    if (state === 'up' && refusals.length === 0) return
    const why = [...problems, ...refusals].join('; ')
    throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', `at boot, after ${this.#options.bootTimeoutMs} ms: ${why}`)
  }

  /** Stays `open` while the instance drains: callbacks of the application still use the registry. */
  get #registryPhase (): 'booting' | 'open' | 'closed' {
    if (this.#closed) return 'closed'
    return this.#started ? 'open' : 'booting'
  }

  #asLocalInstance (): LocalInstance {
    const { instanceId, metrics, metrics: { tracing }, hub, logs, cache, presence, gate, occupancy, blocks } = this.#parts
    return {
      instanceId,
      label: this.#options.instanceLabel ?? '',
      log: this.#log,
      deliver: envelope => this.#deliver(envelope),
      gap: (group, reason, position, epoch, between) => {
        cache.lost(group, position, between)
        if (hub.has(group)) {
          metrics.gaps++
          announce('gap', () => ({ instanceId, group, reason }))
        }
        hub.announceGap(group, { reason, position, epoch })
      },
      returned: (group, position) => hub.announcePosition(group, position),
      logged: group => logs.has(group),
      ...(tracing === undefined ? {} : { repairing: async (group, read) => await inRepairSpan(tracing, group, read) }),
      member: (group, connectionId) => hub.member(group, connectionId),
      memberIds: group => hub.memberIds(group),
      connectionsOf: userId => gate.connectionsOf(userId),
      groups: () => hub.groups(),
      membersLost: () => {
        presence.announceResync()
        occupancy.recheck()
      },
      blocks: () => blocks.held(),
      blocksLost: () => { void blocks.reload() },
      stateChanged: () => this.#stateChanged()
    }
  }

  #stateChanged (): void {
    const { state, problems } = this.#backplane
    this.#reports.health()
    announce('backplane', () => ({ instanceId: this.#parts.instanceId, state, problems }))
    if (state !== 'up') return logEvent(this.#log, 'backplane_not_up', { state, problems })
    logEvent(this.#log, 'backplane_up')
    // Blocks that others made meanwhile did not reach this instance.
    void this.#parts.blocks.reload()
    // The members of this instance are stored again; a list that was read before lacks them.
    this.#parts.presence.announceResync()
    this.#parts.occupancy.recheck()
  }

  #deliver (envelope: Envelope): void {
    const { presence, commands, cache, echoes } = this.#parts
    if (envelope.kind === 'presence') return presence.receive(envelope)
    if (envelope.kind !== 'message') return commands.receive(envelope)
    cache.push(envelope)
    echoes.receive(envelope)
  }
}
