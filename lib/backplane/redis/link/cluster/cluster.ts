import { slotOf } from '../../hash-tags.ts'
import { sumStats } from '../../stats.ts'
import type { Address, ClusterSource } from './source.ts'
import { Link } from '../link.ts'
import { closeMaster, nameOf, statsOf, subscribedTags, type Master } from './master.ts'
import { RoutedLink, type Router } from './routed-link.ts'
import { SlotLookup } from './slot-lookup.ts'
import { knownHost, type SlotMap } from './slot-map.ts'

/** How often the slots are looked up while all is well, and the shortest and the longest pause while a master is missing (milliseconds). */
const pollMs = 5_000
const minRetryMs = 25
const maxRetryMs = 500
/** How soon after the last look-up another one may follow because a master does not answer (milliseconds). */
const suspectMs = 250
/** How long a master without slots is kept, as it may get some back (milliseconds). */
const unusedMs = 10_000

interface ClusterLinkOptions {
  readonly keyPrefix: string
  /** The hash tag of each partition. */
  readonly tags: readonly string[]
  /** The hash tag of what belongs to no partition. */
  readonly commonTag: string
  readonly deadlineMs: number
}

export interface ClusterLinkEvents {
  /** The masters, or whether they answer, may have changed. */
  readonly changed: () => void
  readonly error: (error: Error) => void
  /** Whether a partition has subscribed channels. Left out: nothing is ever subscribed. */
  readonly subscribed?: ((partition: number) => boolean) | undefined
}

/**
 * The connections of a process to a Redis Cluster. Each master that has partitions gets one connection for commands and, where messages are
 * received, one that subscribes; each partition is routed to its master. The slots are looked up every few seconds, and when a master turns
 * a call away, takes subscriptions back or is out. Replicas are asked for nothing but the slots.
 */
export class ClusterLinks implements Router {
  /** The link for commands, by partition. */
  readonly command: readonly RoutedLink[]
  readonly subscribe: readonly RoutedLink[]
  /** The link to what belongs to no partition. */
  readonly common: RoutedLink
  readonly #source: ClusterSource
  readonly #deadlineMs: number
  readonly #tags: readonly string[]
  readonly #byTag: ReadonlyMap<string, RoutedLink>
  /** The index at which the hash tag begins in the name of a channel. */
  readonly #tagAt: number
  readonly #slots: readonly number[]
  /** The links of all partitions, and the common one. */
  readonly #commands: readonly RoutedLink[]
  readonly #events: ClusterLinkEvents
  readonly #masters = new Map<string, Master>()
  readonly #lookup: SlotLookup
  #refreshing: Promise<void> | undefined
  #lastRefreshAt = -Infinity
  #retryMs = minRetryMs
  #timer: NodeJS.Timeout | undefined
  /** The master that may have been replaced: the next look-up asks it last. */
  #suspect: Link | undefined
  #closed = false
  #refreshes = 0
  /** The counters of masters that are no longer used: sums never go down. */
  #counted: Record<string, number> = { redisConnections: 0, redisTimeouts: 0, redisReconnects: 0 }

  constructor (source: ClusterSource, { keyPrefix, tags, commonTag, deadlineMs }: ClusterLinkOptions, events: ClusterLinkEvents) {
    this.#source = source
    this.#lookup = new SlotLookup(source, error => events.error(error))
    this.#tags = tags
    this.#slots = [...tags, commonTag].map(slotOf)
    this.#deadlineMs = deadlineMs
    this.#events = events
    this.command = tags.map(() => new RoutedLink('command', deadlineMs, this))
    this.subscribe = events.subscribed === undefined ? [] : tags.map(() => new RoutedLink('subscribe', deadlineMs, this))
    this.common = new RoutedLink('command', deadlineMs, this)
    this.#commands = [...this.command, this.common]
    this.#byTag = new Map(this.subscribe.map((route, index) => [tags[index] ?? '', route]))
    this.#tagAt = Buffer.byteLength(keyPrefix) + 1
    void this.#refresh()
  }

  /** Whether every partition has a master that answers. */
  get complete (): boolean {
    return this.#commands.every(({ up }) => up) && this.subscribe.every(({ up }) => up)
  }

  /** Whether any partition has a master that answers. */
  get someUp (): boolean {
    return this.command.some(({ up }, index) => up && this.subscribe[index]?.up !== false)
  }

  /** What is wrong with the way to a partition. */
  problemsOf (partition: number): string[] {
    return [this.command[partition]?.problem, this.subscribe[partition]?.problem].filter(problem => problem !== undefined)
  }

  /** Why the cluster is not known yet; `undefined` once it is. */
  get problem (): string | undefined {
    if (this.#masters.size > 0) return undefined
    return `no node of the Redis Cluster answers: ${this.#lookup.failure?.message ?? 'not connected'}`
  }

  stats (): Record<string, number> {
    const masters = [...this.#masters.values()]
    return {
      redisMasters: masters.filter(({ unusedSince }) => unusedSince === undefined).length,
      slotRefreshes: this.#refreshes,
      // These replace the figures of the partitions: each partition shows the figures of its master, which many share.
      ...sumStats([this.#counted, ...masters.map(statsOf)])
    }
  }

  async moved (link: Link): Promise<void> {
    await this.#refresh(link)
  }

  linkTo (name: string, from: Pick<Link, 'address'>): Link | undefined {
    const colon = name.lastIndexOf(':')
    const host = knownHost(name.slice(0, colon), from.address?.host)
    if (this.#closed || host === undefined) return undefined
    const address = this.#lookup.addressOf({ host, port: Number(name.slice(colon + 1)) })
    return address && this.#master(address).command
  }

  inStep (link: Link): void {
    if (!this.subscribe.some(route => route.target === link && route.needsPrevious)) link.dropPrevious()
  }

  suspect (link: Link): void {
    this.#suspect = link
    if (performance.now() - this.#lastRefreshAt > suspectMs) void this.#refresh()
  }

  async close (): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    this.#lookup.close()
    await Promise.all([...this.#masters.values()].map(closeMaster))
    this.#masters.clear()
  }

  /** Looks up the slots; simultaneous calls share one look-up. Never rejects. */
  async #refresh (first?: Link): Promise<void> {
    this.#refreshing ??= this.#look(first).finally(() => {
      this.#refreshing = undefined
      if (!this.#closed) this.#schedule()
    })
    await this.#refreshing
  }

  /** Never rejects. */
  async #look (moved: Link | undefined): Promise<void> {
    const waitMs = this.#lastRefreshAt + minRetryMs - performance.now()
    if (waitMs > 0) await new Promise(resolve => setTimeout(resolve, waitMs))
    this.#lastRefreshAt = performance.now()
    this.#refreshes++
    const up = [...this.#masters.values()].filter(({ command }) => command.up)
    const first = up.find(({ command, subscribe }) => command === moved || subscribe === moved)
    const last = up.find(({ command, subscribe }) => command === this.#suspect || subscribe === this.#suspect)
    this.#suspect = undefined
    const map = await this.#lookup.look(up.filter(master => master !== last), first)
    if (map !== undefined && !this.#closed) this.#accept(map)
  }

  #accept (map: SlotMap): void {
    const used = new Set<Master>()
    for (const [partition, slot] of this.#slots.entries()) {
      const range = map.ranges.find(({ start, end }) => start <= slot && slot <= end)
      const master = range === undefined ? undefined : this.#master(range.master)
      if (master !== undefined) used.add(master)
      this.#commands[partition]?.route(master?.command)
      this.subscribe[partition]?.route(master?.subscribe)
    }
    for (const master of this.#masters.values()) {
      if (used.has(master)) master.unusedSince = undefined
      else this.#unused(master)
    }
    this.#events.changed()
  }

  #unused (master: Master): void {
    const now = performance.now()
    master.unusedSince ??= now
    if (now - master.unusedSince < unusedMs) return
    this.#masters.delete(nameOf(master.address))
    // The gauges of a master end with it.
    this.#counted = sumStats([this.#counted, { ...statsOf(master), redisConnections: 0, bulkReadsWaiting: 0 }])
    void closeMaster(master)
  }

  #master (address: Address): Master {
    const known = this.#masters.get(nameOf(address))
    if (known !== undefined) return known
    const make = (role: 'command' | 'subscribe'): Link => new Link({ ...this.#source.options, ...address }, role, this.#deadlineMs)
    const master = {
      address, command: make('command'), subscribe: this.subscribe.length > 0 ? make('subscribe') : undefined, unusedSince: undefined
    }
    this.#masters.set(nameOf(address), master)
    this.#watch(master.command, this.#commands)
    const { subscribe } = master
    if (subscribe !== undefined) {
      this.#watch(subscribe, this.subscribe)
      subscribe.onMessage((channel, bytes, late) => this.#byTag.get(this.#tagOf(channel))?.receive(channel, bytes, subscribe, late))
    }
    return master
  }

  #tagOf (channel: Buffer): string {
    return channel.toString('latin1', this.#tagAt, channel.indexOf(0x7d, this.#tagAt))
  }

  #watch (link: Link, routes: readonly RoutedLink[]): void {
    const each = (act: (route: RoutedLink) => void): void => { for (const route of routes) if (route.target === link) act(route) }
    link.on({
      up: () => {
        each(route => route.linkUp())
        this.#events.changed()
      },
      down: () => {
        // After a hang or a break only a new connection is sure to have exactly the subscriptions that this process knows of.
        if (routes === this.subscribe) link.reset(true)
        each(route => route.linkDown())
        this.#events.changed()
        this.#retryMs = minRetryMs
        this.#schedule()
      },
      error: error => this.#events.error(error),
      moved: () => { void this.#subscriptionsMoved(link) }
    })
  }

  /** A master took back subscriptions: their slots went to another one, and may even be back by now. */
  async #subscriptionsMoved (link: Link): Promise<void> {
    await this.#refresh(link)
    if (!link.up) return
    const held = subscribedTags(link)
    for (const [partition, route] of this.subscribe.entries()) {
      const isLost = route.target === link && held?.has(this.#tags[partition] ?? '') !== true
      if (isLost && this.#events.subscribed?.(partition) === true) route.lost()
    }
  }

  #schedule (): void {
    clearTimeout(this.#timer)
    if (this.#closed) return
    const well = this.complete && this.#lookup.failure === undefined
    const delayMs = well ? pollMs : this.#retryMs
    this.#retryMs = well ? minRetryMs : Math.min(2 * this.#retryMs, maxRetryMs)
    // Ask up to a fifth earlier, so that a thousand instances do not ask at the same instant.
    this.#timer = setTimeout(() => { void this.#refresh() }, delayMs * (0.8 + Math.random() * 0.2)).unref()
  }
}
