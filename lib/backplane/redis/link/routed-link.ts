import type { Redis } from 'ioredis'
import { WebsocketGroupsError } from '../../../errors.ts'
import { BulkReads } from './bulk.ts'
import type { LinkEvents, LinkStats, MessageListener } from './events.ts'
import type { Link as DirectLink } from './link.ts'
import { drained } from './drained.ts'
import type { Link } from './port.ts'
import { isSuspicious, redirectOf, shardedScript } from './redirects.ts'
import type { Script } from './script.ts'

/** Calls of one partition that may wait for its new master. */
const maxHeld = 1_000
const firstRetryMs = 10
const maxRetryMs = 100

/** For calls made while there is no master; they fail before they read. */
const noBulk = new BulkReads()

type Arguments = ReadonlyArray<string | number | Buffer>

interface Held {
  readonly ticket: number
  readonly start: () => void
}

/** What a routed link asks of those who know the cluster. */
export interface Router {
  /** This server says that the slot is not its own: asks where it is now. Resolves when the routes are set by the answer; never rejects. */
  moved (link: DirectLink): Promise<void>
  /** This server does not answer, or says that it has lost sight of the others: maybe another one took its place. */
  suspect (link: DirectLink): void
  /** A partition has all that came by the connection before. */
  inStep (link: DirectLink): void
}

/**
 * The way to whichever master has a partition now: a link whose other end changes. Calls that reach a master which no longer has the
 * partition were not carried out: they are sent to the new one, in their order, within their deadline.
 */
export class RoutedLink implements Link {
  readonly sharded = true
  readonly deadlineMs: number
  readonly #role: 'command' | 'subscribe'
  readonly #router: Router
  readonly #listeners: LinkEvents[] = []
  #link: DirectLink | undefined
  #receive: MessageListener | undefined
  #needsPrevious = false
  /** Whether the listeners know the link as up. */
  #up = false
  #connections = 0
  #tickets = 0
  /** Calls under way at the present master. */
  #flying = 0
  /** The master said that it does not have the slot any more: calls wait, oldest first, until it is known who has. */
  #held: Held[] | undefined
  #asking = false

  constructor (role: 'command' | 'subscribe', deadlineMs: number, router: Router) {
    this.#role = role
    this.deadlineMs = deadlineMs
    this.#router = router
  }

  /** The link to the partition's master; `undefined` while no master has it. */
  get target (): DirectLink | undefined {
    return this.#link
  }

  get master (): { readonly connection: number } {
    return this.#link ?? this
  }

  get up (): boolean {
    return this.#up
  }

  get connection (): number {
    return this.#connections
  }

  get bulk (): BulkReads {
    return this.#link?.bulk ?? noBulk
  }

  get problem (): string | undefined {
    if (this.#up) return undefined
    return this.#link?.problem ?? `Redis ${this.#role} link is down: no master serves the slot`
  }

  on (listener: LinkEvents): void {
    this.#listeners.push(listener)
  }

  /** The links to the masters are counted, not the ways to them. */
  stats (): LinkStats {
    return { connections: 0, timeouts: 0, reconnects: 0 }
  }

  onMessage (receive: MessageListener): void {
    this.#receive = receive
  }

  /** A message came from a channel of this partition; `late` too when the partition has moved since. */
  receive (channel: Buffer, bytes: Buffer, from: DirectLink, late: boolean): void {
    this.#receive?.(channel, bytes, late || from !== this.#link)
  }

  async previousDrained (): Promise<void> {
    if (this.#link !== undefined) await drained(this.#link)
  }

  /** Whether what comes by the connection before may still be of use. */
  get needsPrevious (): boolean {
    return this.#needsPrevious
  }

  dropPrevious (): void {
    if (!this.#needsPrevious) return
    this.#needsPrevious = false
    if (this.#link !== undefined) this.#router.inStep(this.#link)
  }

  /**
   * The state of a subscription is unknown: those of all partitions at this master share its connection. A link that is down is reset by
   * whoever made it, and where the slot moved there is nothing to reset.
   */
  reset (keep = false): void {
    if (this.#link?.up === true && !this.#asking) this.#link.reset(keep)
  }

  /** The links are shared: whoever made them closes them. */
  async close (): Promise<void> {}

  /** From now on calls go there. */
  route (link: DirectLink | undefined): void {
    if (link === this.#link) return
    const isUp = link?.up === true
    this.#link = undefined
    // What is subscribed at one master is not at another. Calls go on without a break: their data moved, too.
    if (this.#role === 'subscribe' || !isUp) this.linkDown()
    this.#link = link
    // Those that the old master turns away come before those that are made from now on.
    if (this.#flying > 0) this.#held ??= []
    if (isUp) this.linkUp()
  }

  /** The link to the partition's master works (again). */
  linkUp (): void {
    this.#up = true
    this.#needsPrevious = this.#receive !== undefined
    this.#connections++
    for (const { up } of this.#listeners) up?.()
  }

  linkDown (): void {
    if (!this.#up) return
    this.#up = false
    for (const { down } of this.#listeners) down?.()
  }

  /** Subscriptions of this partition are gone, although the connection is well: they are made anew. */
  lost (): void {
    if (!this.#up) return
    const link = this.#link
    this.#link = undefined
    this.linkDown()
    this.#link = link
    if (link?.up === true) this.linkUp()
  }

  async run<T> (command: (redis: Redis, settled: () => boolean) => Promise<T>, deadlineMs = this.deadlineMs): Promise<T> {
    return await this.#call(async (link, leftMs) => await link.run(command, leftMs), deadlineMs)
  }

  async runBulk<T> (command: (redis: Redis, settled: () => boolean) => Promise<T>): Promise<T> {
    return await this.#call(async link => await link.runBulk(command))
  }

  async runSized<T> (bytes: number, command: (redis: Redis, settled: () => boolean) => Promise<T>): Promise<T> {
    return await this.#call(async link => await link.runSized(bytes, command))
  }

  async script (script: Script, keys: readonly string[], args: Arguments): Promise<unknown> {
    return await this.#call(async link => await link.script(shardedScript(script), keys, args))
  }

  async bytesScript (script: Script, keys: readonly string[], args: Arguments): Promise<unknown> {
    return await this.#call(async link => await link.bytesScript(shardedScript(script), keys, args))
  }

  async bulkScript (script: Script, keys: readonly string[], args: Arguments): Promise<unknown> {
    return await this.#call(async link => await link.bulkScript(shardedScript(script), keys, args))
  }

  async #call<T> (call: (link: DirectLink, leftMs: number) => Promise<T>, deadlineMs = this.deadlineMs): Promise<T> {
    const ticket = ++this.#tickets
    const startedAt = performance.now()
    let pauseMs = firstRetryMs
    for (;;) {
      const leftMs = deadlineMs - (performance.now() - startedAt)
      try {
        if (this.#held === undefined) return await this.#fly(call, leftMs)
        return await this.#hold(ticket, leftMs, async () => await this.#fly(call, leftMs))
      } catch (error) {
        const redirect = this.#role === 'command' ? redirectOf(error) : undefined
        if (redirect === undefined || performance.now() - startedAt + pauseMs > deadlineMs) throw error
        // Only the keys of this call wait for their slot: others may go first.
        if (redirect === 'later') await new Promise(resolve => setTimeout(resolve, pauseMs))
        pauseMs = Math.min(2 * pauseMs, maxRetryMs)
      }
    }
  }

  async #fly<T> (call: (link: DirectLink, leftMs: number) => Promise<T>, leftMs: number): Promise<T> {
    const link = this.#link
    if (link === undefined || !this.#up) throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', this.problem)
    this.#flying++
    try {
      return await call(link, leftMs)
    } catch (error) {
      const redirect = redirectOf(error)
      if (redirect === 'moved') this.#moved(link)
      else if (redirect === undefined && isSuspicious(error)) this.#router.suspect(link)
      throw error
    } finally {
      this.#flying--
      this.#releaseSoon()
    }
  }

  /** Waits for the partition's master to be known. Calls start again in the order they were made. */
  async #hold<T> (ticket: number, leftMs: number, start: () => Promise<T>): Promise<T> {
    const held = this.#held ?? []
    if (held.length >= maxHeld) throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'too many calls wait for a slot that moved')
    return await new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        held.splice(held.indexOf(one), 1)
        reject(new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'the slot moved, and its new master is not known yet'))
      }, Math.max(leftMs, 0))
      const one = {
        ticket,
        start: () => {
          clearTimeout(timer)
          start().then(resolve, reject)
        }
      }
      const after = held.findLastIndex(other => other.ticket < ticket)
      held.splice(after + 1, 0, one)
    })
  }

  #moved (link: DirectLink): void {
    if (this.#role === 'command') this.#held ??= []
    if (this.#asking || link !== this.#link) return
    this.#asking = true
    void this.#router.moved(link).then(() => {
      this.#asking = false
      // The slot may have come back meanwhile, without its subscriptions.
      if (this.#role === 'subscribe' && this.#link === link) this.lost()
      this.#releaseSoon()
    })
  }

  /** Not at once: those that were turned away in this turn come first. */
  #releaseSoon (): void {
    if (this.#held !== undefined) setImmediate(() => this.#release())
  }

  /** All that was under way at the old master is answered, and the new one is known: calls go on. */
  #release (): void {
    if (this.#held === undefined || this.#asking || this.#flying > 0) return
    const held = this.#held
    this.#held = undefined
    for (const { start } of held) start()
  }
}
