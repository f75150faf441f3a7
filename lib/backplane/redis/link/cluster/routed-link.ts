import { WebsocketGroupsError } from '../../../../errors.ts'
import { BulkReads } from '../bulk.ts'
import type { LinkEvents, LinkStats, MessageListener } from '../events.ts'
import type { Link as DirectLink } from '../link.ts'
import { drained } from './drained.ts'
import { HeldCalls } from './held-calls.ts'
import type { Link } from '../port.ts'
import { asking, importerOf, isSuspicious, redirectOf, shardedScript, type RedisCall } from './redirects.ts'
import { byHash, bytesCommands, bytesOf, textCommands, type Script } from '../script.ts'

const firstRetryMs = 10
const maxRetryMs = 100

/** Stands in for the queue of a master while there is none: calls fail before they use it. */
const noBulk = new BulkReads()

type Arguments = ReadonlyArray<string | number | Buffer>
/** A call of a link. `allow` turns a command into one that this server accepts. */
type Call<Answer> = (link: DirectLink, leftMs: number, allow: typeof asking) => Promise<Answer>

/** What a routed link asks of the part that knows the cluster. */
export interface Router {
  /** Looks up where the slot is that this server no longer has. Resolves when the routes are set accordingly; never rejects. */
  moved (link: DirectLink): Promise<void>
  /**
   * The link to a master, by `host:port` as the cluster knows it; `undefined` if `natMap` fails for it, or once the links are closed. A
   * name without a host means the host of `from`, the link to the master that named it.
   */
  linkTo (name: string, from: Pick<DirectLink, 'address'>): DirectLink | undefined
  /** Reports that this server does not answer, or has lost sight of the others: another one may have taken its place. */
  suspect (link: DirectLink): void
  /** A partition has received everything from the previous connection. */
  inStep (link: DirectLink): void
}

/**
 * The link to whichever master has a partition now. A call that a former master turns away was not carried out: it is sent to the new
 * master, in its order, within its deadline.
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
  /** How many calls are under way. */
  #underWay = 0
  /** The master no longer has the slot: calls wait until the new master is known. */
  #held: HeldCalls | undefined
  /** The router looks up where the slot is now. */
  #lookingUp = false

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

  unavailable (): WebsocketGroupsError {
    return this.#link?.unavailable() ?? new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'no master serves the slot')
  }

  on (listener: LinkEvents): void {
    this.#listeners.push(listener)
  }

  /** Has no counters of its own: the stats count the links to the masters. */
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

  previousDrained (patiently = false): Promise<void> | undefined {
    if (this.#link === undefined) return undefined
    return patiently ? this.#link.previousDrained(true) : drained(this.#link)
  }

  /** Whether messages from the previous connection may still be of use. */
  get needsPrevious (): boolean {
    return this.#needsPrevious
  }

  dropPrevious (): void {
    if (!this.#needsPrevious) return
    this.#needsPrevious = false
    if (this.#link !== undefined) this.#router.inStep(this.#link)
  }

  /**
   * The state of a subscription is unknown: resets the link to the master, whose connection the subscriptions of all its partitions share.
   * The owner of the links resets a link that is down, and while the slot's new master is looked up there is nothing to reset.
   */
  reset (keep = false): void {
    if (this.#link?.up === true && !this.#lookingUp) this.#link.reset(keep)
  }

  /** The links are shared: their owner closes them. */
  async close (): Promise<void> {}

  /** Sends calls to this master from now on. */
  route (link: DirectLink | undefined): void {
    if (link === this.#link) return
    const isUp = link?.up === true
    this.#link = undefined
    // Subscriptions at one master do not move to another. Calls go on without a break: their data moved, too.
    if (this.#role === 'subscribe' || !isUp) this.linkDown()
    this.#link = link
    // Calls that the old master turns away come before calls that are made from now on.
    if (this.#underWay > 0) this.#held ??= new HeldCalls()
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

  /** The subscriptions of this partition are gone, although the connection works: they are made anew. */
  lost (): void {
    if (!this.#up) return
    const link = this.#link
    this.#link = undefined
    this.linkDown()
    this.#link = link
    if (link?.up === true) this.linkUp()
  }

  async run<T> (command: RedisCall<T>, deadlineMs = this.deadlineMs): Promise<T> {
    return await this.#call(async (link, leftMs, allow) => await link.run(allow(command), leftMs), deadlineMs)
  }

  async runBulk<T> (command: RedisCall<T>): Promise<T> {
    return await this.#call(async (link, _, allow) => await link.runBulk(allow(command)))
  }

  async runSized<T> (bytes: number, command: RedisCall<T>, kind: 'call' | 'publish'): Promise<T> {
    return await this.#call(async (link, _, allow) => await link.runSized(bytes, allow(command), kind))
  }

  async script (script: Script, keys: readonly string[], args: Arguments): Promise<unknown> {
    return await this.run(byHash(...textCommands(shardedScript(script), keys, args)))
  }

  async bytesScript (script: Script, keys: readonly string[], args: Arguments): Promise<unknown> {
    return await this.runSized(bytesOf(args), byHash(...bytesCommands(shardedScript(script), keys, args)), 'call')
  }

  async bulkScript (script: Script, keys: readonly string[], args: Arguments): Promise<unknown> {
    return await this.runBulk(byHash(...bytesCommands(shardedScript(script), keys, args)))
  }

  async #call<T> (call: Call<T>, deadlineMs = this.deadlineMs): Promise<T> {
    const ticket = ++this.#tickets
    const endsAt = performance.now() + deadlineMs
    const leftMs = (): number => Math.max(endsAt - performance.now(), 0)
    let pauseMs = firstRetryMs
    for (;;) {
      try {
        if (this.#held === undefined) return await this.#send(call, leftMs)
        return await this.#held.add(ticket, leftMs(), async () => await this.#send(call, leftMs))
      } catch (error) {
        const redirect = this.#role === 'command' ? redirectOf(error) : undefined
        if (redirect === undefined || pauseMs > leftMs()) throw error
        // Only this call waits for its keys: other calls may go first.
        if (redirect === 'later' || this.#held === undefined) await new Promise(resolve => setTimeout(resolve, pauseMs))
        pauseMs = Math.min(2 * pauseMs, maxRetryMs)
      }
    }
  }

  async #send<T> (call: Call<T>, leftMs: () => number): Promise<T> {
    const link = this.#link
    if (link === undefined || !this.#up) throw this.unavailable()
    this.#underWay++
    try {
      return await call(link, leftMs(), call => call)
    } catch (error) {
      const importer = this.#importer(error, link)
      if (importer !== undefined) return await call(importer, leftMs(), asking)
      const redirect = redirectOf(error)
      if (redirect === 'moved') this.#moved(link)
      else if (redirect === undefined && isSuspicious(error)) this.#router.suspect(link)
      throw error
    } finally {
      this.#underWay--
      this.#releaseSoon()
    }
  }

  /** The link to the master that already has the keys of a call, if there is one and it can be reached. */
  #importer (error: unknown, from: DirectLink): DirectLink | undefined {
    const name = this.#role === 'command' ? importerOf(error) : undefined
    const link = name === undefined ? undefined : this.#router.linkTo(name, from)
    return link?.up === true ? link : undefined
  }

  #moved (link: DirectLink): void {
    if (this.#role === 'command') this.#held ??= new HeldCalls()
    if (this.#lookingUp || link !== this.#link) return
    this.#lookingUp = true
    void this.#router.moved(link).then(() => {
      this.#lookingUp = false
      // The slot may have come back meanwhile, without its subscriptions.
      if (this.#role === 'subscribe' && this.#link === link) this.lost()
      this.#releaseSoon()
    })
  }

  /** Releases the waiting calls in the next turn: those that were turned away in this one come first. */
  #releaseSoon (): void {
    if (this.#held !== undefined) setImmediate(() => this.#release())
  }

  /** All that was under way at the old master is answered, and the new one is known: calls go on. */
  #release (): void {
    if (this.#held === undefined || this.#lookingUp || this.#underWay > 0) return
    const held = this.#held
    this.#held = undefined
    held.start()
  }
}
