import type { Appended, Backplane, Envelope, LocalInstance, LogPage, Target } from '../../lib/backplane/backplane.ts'
import type { LocalConnection } from '../../lib/connection/connection.ts'
import type { SocketWriter } from '../../lib/connection/outbound/writer.ts'
import type { OutboundMessage } from '../../lib/connection/outbound/message.ts'
import { logStart } from '../../lib/backplane/position.ts'
import type { Member } from '../../lib/types.ts'

/** A logger that says nothing. */
export const silentLog = new Proxy({}, { get: (_, key) => key === 'child' ? () => silentLog : key === 'level' ? 'silent' : () => {} }) as LocalInstance['log']

/** A connection without a socket: it remembers what was written to it. */
export interface FakeConnection extends LocalConnection { readonly written: string[] }

let made = 0

class WithoutSocket {
  readonly id: string
  readonly number = ++made
  readonly userId: string | undefined
  readonly written: string[] = []
  readonly sessionName = undefined
  readonly framed: boolean
  readonly #groups = new Set<string>()
  closed = false
  /** Messages without a log that there was no room for. */
  missed = 0
  readonly outbound = { enqueueShared: (outgoing: OutboundMessage) => this.#write(outgoing), enqueueOne: (outgoing: OutboundMessage) => this.#write(outgoing), full: false, room: () => undefined, missed: () => { this.missed++ } } as unknown as SocketWriter

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

  closeForFault (): void {
    this.closed = true
  }

  #write (outgoing: OutboundMessage): boolean {
    if (!this.closed) this.written.push(outgoing.message(this.framed).payload.toString())
    return !this.closed
  }
}

export function fakeConnection (id: string, userId?: string, framed = false): FakeConnection {
  return new WithoutSocket(id, userId, framed) as unknown as FakeConnection
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
  deaf = false

  async start (): Promise<void> {}
  async subscribe (target: Target): Promise<void> { await this.onSubscribe(target) }
  unsubscribe (target: Target): void { this.unsubscribed.push(target) }
  interrupted (): boolean { return this.deaf }

  async publish (targets: readonly Target[], envelope: Envelope): Promise<number | undefined> {
    this.published.push(envelope)
    return await this.onPublish(envelope)
  }

  async append (): Promise<Appended> { return { position: logStart, queued: false, duplicate: false } }
  async history (): Promise<LogPage> { return { gap: undefined, messages: [], before: logStart, end: logStart, more: false } }
  position (): undefined {}

  async syncMember (group: string, connectionId: string): Promise<void> { await this.onSync(group, connectionId) }
  async count (group: string): Promise<number> { return (await this.onRead(group)).length }
  async members (group: string): Promise<Member[]> { return await this.onRead(group) }
  stats (): Record<string, number> { return {} }
  async close (): Promise<void> {}
}

/** A promise that the test settles. */
export interface Deferred<Value> {
  readonly promise: Promise<Value>
  resolve (value: Value): void
  reject (error: unknown): void
}

export function deferred<Value = void> (): Deferred<Value> {
  let resolve: Deferred<Value>['resolve'] = () => {}
  let reject: Deferred<Value>['reject'] = () => {}
  const promise = new Promise<Value>((_resolve, _reject) => { resolve = _resolve; reject = _reject })
  return { promise, resolve, reject }
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
