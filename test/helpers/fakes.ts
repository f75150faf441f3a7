import type { Appended, Backplane, Block, Envelope, LogPage, Target } from '../../lib/backplane/backplane.ts'
import { LocalConnection } from '../../lib/connection/connection.ts'
import type { SocketWriter } from '../../lib/connection/outbound/writer.ts'
import type { OutboundMessage } from '../../lib/connection/outbound/message.ts'
import { logStart } from '../../lib/backplane/position.ts'
import { partsOf, type Parts } from '../../lib/groups/parts.ts'
import { IntakeBudget } from '../../lib/connection/inbound/intake-budget.ts'
import type { ConnectionHost, ConnectionInit } from '../../lib/connection/init.ts'
import type { InboundLimits } from '../../lib/connection/inbound/message-buffer.ts'
import { FlushScheduler } from '../../lib/connection/outbound/flush-scheduler.ts'
import { Pulse } from '../../lib/connection/pulse.ts'
import { Metrics } from '../../lib/metrics.ts'
import { resolveLimits } from '../../lib/options/limits.ts'
import { resolveOptions } from '../../lib/options/resolve.ts'
import type { WebsocketGroupsOptions } from '../../lib/options/types.ts'
import type { Member } from '../../lib/types.ts'
import { silentLog } from './loggers.ts'

/** A connection without a socket: it remembers what was written to it, and how it was called. */
export interface FakeConnection extends LocalConnection {
  readonly written: string[]
  /** `ping`, `leaving`, `terminate`, `close <code> <reason>`, `fault <code>`, `force <code>`, in their order. */
  readonly calls: string[]
}

let made = 0

class WithoutSocket {
  readonly id: string
  readonly number = ++made
  readonly userId: string | undefined
  readonly written: string[] = []
  readonly calls: string[] = []
  readonly log = silentLog
  readonly pulse = new Pulse()
  readonly sessionName = undefined
  readonly framed: boolean
  readonly #groups = new Set<string>()
  closed = false
  /** Messages without a log that there was no room for. */
  missed = 0
  readonly outbound = {
    enqueueShared: (outgoing: OutboundMessage) => this.#write(outgoing),
    enqueueOne: (outgoing: OutboundMessage) => this.#write(outgoing),
    full: false,
    traffic: {},
    room: () => undefined,
    missed: () => { this.missed++ }
  } as unknown as SocketWriter

  constructor (id: string, userId: string | undefined, framed: boolean) {
    this.id = id
    this.userId = userId
    this.framed = framed
  }

  get groups (): string[] {
    return [...this.#groups]
  }

  get groupCount (): number {
    return this.#groups.size
  }

  groupJoined (group: string): void {
    this.#groups.add(group)
  }

  groupLeft (group: string): void {
    this.#groups.delete(group)
  }

  takeOffer (): undefined {}

  announce (frame: object): void {
    if (this.framed) this.written.push(JSON.stringify(frame))
  }

  gapped (group: string, reason: string): void {
    if (!this.framed) this.written.push(`gap: ${reason} in ${group}`)
  }

  ping (): void { this.calls.push('ping') }
  leaving (): void { this.calls.push('leaving') }
  terminate (): void { this.calls.push('terminate') }
  close (code: number, reason: string): void { this.calls.push(`close ${code} ${reason}`) }
  forceClosed (code: number): void { this.calls.push(`force ${code}`) }

  closeForFault (code: number): void {
    this.closed = true
    this.calls.push(`fault ${code}`)
  }

  #write (outgoing: OutboundMessage): boolean {
    if (!this.closed) this.written.push(outgoing.message({ framed: this.framed, json: false }).payload.toString())
    return !this.closed
  }
}

export function fakeConnection (id: string, userId?: string, framed = false): FakeConnection {
  return new WithoutSocket(id, userId, framed) as unknown as FakeConnection
}

/** A connection on this socket, which belongs to no instance. The socket may be a fake. */
export function connectionOn (
  socket: unknown,
  { limits, metrics = new Metrics(), host, ...init }: Omit<Partial<ConnectionInit<LocalConnection>>, 'host'> & {
    readonly limits?: InboundLimits & { readonly maxBufferedBytes: number }
    readonly metrics?: Metrics
    readonly host?: Partial<ConnectionHost<LocalConnection>>
  } = {}
): { readonly connection: LocalConnection, readonly metrics: Metrics, start (): void } {
  const standard = resolveLimits()
  const { maxBufferedBytes } = limits ?? { maxBufferedBytes: 4_194_304 }
  const outbound = { maxBufferedBytes, slowBufferedBytes: Math.min(65_536, maxBufferedBytes), flushIntervalMs: 0, limits: standard }
  const connection = new LocalConnection({
    socket: socket as ConnectionInit<LocalConnection>['socket'],
    id: 'i.1',
    params: {},
    identity: null,
    userId: undefined,
    log: silentLog,
    callbacks: { onMessage () {} },
    ...init,
    host: {
      limits: limits ?? { maxQueuedMessages: 10, maxQueuedBytes: 1_000_000, options: {} },
      intake: new IntakeBudget(standard, metrics),
      scheduler: new FlushScheduler(outbound, metrics, silentLog),
      metrics,
      enter: () => undefined,
      release: async () => {},
      ...host
    }
  })
  return { connection, metrics, start: () => connection.start({} as Parameters<LocalConnection['start']>[0]) }
}

export function member (connection: { readonly id: string }): Member {
  return { connectionId: connection.id, instanceId: 'instance00', joinedAt: 0 }
}

/** A backplane whose answers are the test's to give: each method does what the test put in its place, and else succeeds at once. */
export class FakeBackplane implements Backplane {
  readonly name = 'fake'
  readonly state = 'up'
  readonly problems: readonly string[] = []
  readonly published: Envelope[] = []
  readonly unsubscribed: Target[] = []
  onPublish: (envelope: Envelope) => Promise<number | undefined> = async () => 1
  onSubscribe: (target: Target) => Promise<void> = async () => {}
  onSync: (group: string, connectionId: string) => Promise<void> = async () => {}
  onRead: (group: string) => Promise<Member[]> = async () => []
  onUser: (userId: string) => Promise<number> = async () => 0
  readonly blocked = new Map<string, number>()
  deaf = false

  async start (): Promise<void> {}
  async subscribe (target: Target): Promise<void> { await this.onSubscribe(target) }
  unsubscribe (target: Target): void { this.unsubscribed.push(target) }
  interrupted (): boolean { return this.deaf }

  async publish (targets: readonly Target[], envelope: Envelope): Promise<number | undefined> {
    this.published.push(envelope)
    return await this.onPublish(envelope)
  }

  async append (): Promise<Appended> { return { positions: new Map(), queued: false, duplicate: false } }
  async history (): Promise<LogPage> { return { gap: undefined, messages: [], before: logStart, end: logStart, more: false } }
  position (): undefined {}

  async syncMember (group: string, connectionId: string): Promise<void> { await this.onSync(group, connectionId) }
  async syncUser (userId: string): Promise<number> { return await this.onUser(userId) }

  async block (name: string, forMs: number): Promise<boolean> {
    this.blocked.set(name, forMs)
    return true
  }

  async blocks (): Promise<Block[]> { return Array.from(this.blocked, ([name, leftMs]) => ({ name, leftMs })) }
  async count (group: string): Promise<number> { return (await this.onRead(group)).length }
  async members (group: string): Promise<Member[]> { return await this.onRead(group) }
  stats (): Record<string, number> { return {} }
  async close (): Promise<void> {}
}

/** The parts of an instance as `partsOf` wires them, on a backplane whose answers the test gives. */
export function fakeInstance (options: WebsocketGroupsOptions = {}): Parts & { readonly backplane: FakeBackplane } {
  const backplane = new FakeBackplane()
  return { ...partsOf(resolveOptions(options), backplane, silentLog), backplane }
}

/** The same numbers at every run: integers from 0 to below `limit`. */
export function seededRandom (seed: number): (limit: number) => number {
  let state = seed >>> 0
  // mulberry32
  return limit => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit
  }
}
