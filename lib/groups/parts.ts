import type { FastifyBaseLogger } from 'fastify'
import type { Backplane, Presences } from '../backplane/backplane.ts'
import { IntakeBudget } from '../connection/inbound/intake-budget.ts'
import { FlushScheduler } from '../connection/outbound/flush-scheduler.ts'
import { Backlog } from '../delivery/backlog.ts'
import { Broadcaster } from '../delivery/broadcaster.ts'
import { EchoFilter } from '../delivery/echo.ts'
import { EnvelopeFactory } from '../delivery/envelopes.ts'
import { LogCache } from '../delivery/log-cache.ts'
import { LoggedPublish } from '../delivery/logged-publish.ts'
import { Replay } from '../delivery/replay.ts'
import { Revocations } from '../delivery/revocations.ts'
import { ProofKeys } from '../delivery/resume-proofs.ts'
import { Blocklist } from './blocklist.ts'
import { Gate } from './gate.ts'
import { GroupHistory } from './history.ts'
import { Membership } from './membership.ts'
import { Occupancy } from './occupancy.ts'
import { StoredBytes } from './stored-bytes.ts'
import { GroupReads } from './reads.ts'
import { ConnectionCommands } from './remote.ts'
import { Hub } from '../hub/hub.ts'
import { instanceLog, logEvent } from '../logging.ts'
import { Metrics } from '../metrics.ts'
import { GroupLogs } from '../options/group-logs.ts'
import { answerTimeoutMs, type ResolvedOptions } from '../options/resolve.ts'
import { Presence } from '../presence/presence.ts'
import { Streams } from '../streams/streams.ts'

/** The parts of one instance, wired to each other. */
export interface Parts {
  readonly instanceId: string
  readonly log: FastifyBaseLogger
  readonly metrics: Metrics
  readonly hub: Hub
  readonly envelopes: EnvelopeFactory
  readonly scheduler: FlushScheduler
  readonly echoes: EchoFilter
  readonly logs: GroupLogs
  readonly cache: LogCache
  readonly presence: Presence
  readonly revocations: Revocations
  readonly membership: Membership
  readonly broadcaster: Broadcaster
  readonly reads: GroupReads
  readonly history: GroupHistory
  readonly streams: Streams
  readonly commands: ConnectionCommands
  readonly blocks: Blocklist
  readonly gate: Gate
  readonly occupancy: Occupancy
  readonly intake: IntakeBudget
  readonly stored: StoredBytes
}

/** Builds the parts of an instance, lowest layer first. Nothing runs yet. */
export function partsOf (options: ResolvedOptions, backplane: Backplane, appLog: FastifyBaseLogger): Parts {
  const { outage } = options
  const hub = new Hub()
  const envelopes = new EnvelopeFactory(id => hub.connections.get(id), () => backplane.now?.() ?? Date.now(), options.tracing)
  const instanceId = envelopes.origin
  const metrics = new Metrics(instanceId, options.tracing)
  const log = instanceLog(appLog, instanceId, options.instanceLabel)
  const scheduler = new FlushScheduler(options, metrics, log)
  const echoes = new EchoFilter(hub, envelopes, metrics, log)
  const logs = new GroupLogs(options)
  const cache = new LogCache()
  const proofKeys = new ProofKeys(backplane, options.secret, error => {
    logEvent(log, 'secret_unreadable', { err: error })
  })
  const unrevoked = (error: unknown): void => { logEvent(log, 'revocation_failed', { err: error }) }
  const revocations = new Revocations(backplane, logs, unrevoked)
  const replay = new Replay(hub, backplane, new Backlog(backplane, cache, logs, metrics), proofKeys, revocations, metrics.lines)
  const logged = new LoggedPublish(backplane, logs, metrics.logLengths)
  const broadcaster = new Broadcaster(hub, backplane, logged, envelopes, echoes, outage.broadcast, scheduler, metrics)
  const presence = new Presence(backplane, envelopes, options.presenceGraceMs, options.limits, metrics)
  const here = (kind: Presences): Iterable<string> => kind === 'group' ? hub.groups() : gate.userIds()
  const occupancy = new Occupancy(backplane, here, options, log, metrics.lines)
  const settings = { ...options, policy: outage.join, instanceId }
  const membership = new Membership(hub, backplane, replay, revocations, presence, occupancy, settings, metrics)
  const reads = new GroupReads(hub, backplane, outage.reads)
  const history = new GroupHistory(backplane, proofKeys)
  const blocks = new Blocklist(() => hub.connections.values(), backplane, options, metrics, unrevoked)
  const gate = new Gate(options, backplane, blocks, occupancy, metrics)
  const intake = new IntakeBudget(options.limits, metrics)
  const stored = new StoredBytes(options.limits, logs, metrics)
  const streams = new Streams(backplane, envelopes, () => metrics.limitHit('streamsRefused'))
  const commands = new ConnectionCommands(
    hub, membership, backplane, envelopes, answerTimeoutMs(options), blocks, metrics, log, streams
  )
  const limits = { gate, intake, stored }
  const groups = { presence, revocations, membership, broadcaster, reads, history, streams, commands, blocks, occupancy, ...limits }
  return { instanceId, log, metrics, hub, envelopes, scheduler, echoes, logs, cache, ...groups }
}
