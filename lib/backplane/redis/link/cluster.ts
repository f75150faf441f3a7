import { withDeadline } from '../../../deadline.ts'
import { slotOf } from '../hash-tags.ts'
import type { Address, ClusterSource } from './cluster-source.ts'
import { connect } from './connect.ts'
import { Link } from './link.ts'
import { closeMaster, nameOf, subscribedTags, uniqueAddresses, type Master } from './master.ts'
import { RoutedLink, type Router } from './routed-link.ts'
import { isFinal } from './server.ts'
import { readSlotMap, type SlotMap } from './slot-map.ts'

/** How often the nodes are asked who has which slot while all is well, and how soon and how late when a master is missing. */
const pollMs = 5_000
const minRetryMs = 25
const maxRetryMs = 500
/** How soon after the last look one is worth while because a master does not answer. */
const suspectMs = 250
/** How long one node may take to answer. */
const askMs = 1_000
/** A master without slots is left after this long: it may get some back. */
const unusedMs = 10_000
/** After so long without a view that is as new as the latest one, the cluster was made anew. */
const staleMs = 30_000

export interface ClusterLinkEvents {
  /** A message came from a subscribed channel. */
  readonly message: (channel: Buffer, bytes: Buffer) => void
  /** The masters, or whether they answer, may have changed. */
  readonly changed: () => void
  readonly error: (error: Error) => void
  /** Whether a partition has subscribed channels, as far as we know. */
  readonly subscribed: (partition: number) => boolean
}

/**
 * The connections of a process to a Redis Cluster: to each master that has partitions one for commands and, where messages are received,
 * one that subscribes; and the way of each partition to its master. Where the slots are is asked every few seconds, when a master turns a
 * call away, takes subscriptions back or is out. Replicas are only ever asked where the slots are.
 */
export class ClusterLinks implements Router {
  /** By partition. */
  readonly command: readonly RoutedLink[]
  readonly subscribe: readonly RoutedLink[]
  readonly #source: ClusterSource
  readonly #deadlineMs: number
  readonly #tags: readonly string[]
  readonly #slots: readonly number[]
  readonly #receives: boolean
  readonly #events: ClusterLinkEvents
  readonly #masters = new Map<string, Master>()
  /** Nodes that the cluster named last. */
  #nodes: readonly Address[] = []
  #epoch = 0
  #acceptedAt = performance.now()
  #refreshing: Promise<void> | undefined
  #lastRefreshAt = -Infinity
  #retryMs = minRetryMs
  #timer: NodeJS.Timeout | undefined
  /** The master that may have been replaced: it is asked last. */
  #suspect: Link | undefined
  #failure: Error | undefined
  #closed = false
  #refreshes = 0

  /** `tags`: of each partition. `receives`: whether there are subscriptions. */
  constructor (source: ClusterSource, tags: readonly string[], receives: boolean, deadlineMs: number, events: ClusterLinkEvents) {
    this.#source = source
    this.#tags = tags
    this.#slots = tags.map(slotOf)
    this.#receives = receives
    this.#deadlineMs = deadlineMs
    this.#events = events
    this.command = tags.map(() => new RoutedLink('command', deadlineMs, this))
    this.subscribe = receives ? tags.map(() => new RoutedLink('subscribe', deadlineMs, this)) : []
    void this.#refresh()
  }

  /** Whether every partition has a master that answers. */
  get complete (): boolean {
    return this.command.every(({ up }) => up) && this.subscribe.every(({ up }) => up)
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
    return `no node of the Redis Cluster answers: ${this.#failure?.message ?? 'not connected'}`
  }

  stats (): Record<string, number> {
    const links = [...this.#masters.values()].flatMap(({ command, subscribe }) => [command, subscribe]).filter(link => link !== undefined)
    const sum = (of: (link: Link) => number): number => links.reduce((total, link) => total + of(link), 0)
    return {
      redisMasters: [...this.#masters.values()].filter(({ unusedSince }) => unusedSince === undefined).length,
      redisTimeouts: sum(link => link.stats().timeouts),
      redisReconnects: sum(link => link.stats().reconnects),
      slotRefreshes: this.#refreshes
    }
  }

  async moved (link: Link): Promise<void> {
    await this.#refresh(link)
  }

  suspect (link: Link): void {
    this.#suspect = link
    if (performance.now() - this.#lastRefreshAt > suspectMs) void this.#refresh()
  }

  async close (): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await Promise.all([...this.#masters.values()].map(closeMaster))
    this.#masters.clear()
  }

  /** Calls at the same time share one look. Never rejects. */
  async #refresh (first?: Link): Promise<void> {
    this.#refreshing ??= this.#look(first).finally(() => {
      this.#refreshing = undefined
      if (!this.#closed) this.#schedule()
    })
    await this.#refreshing
  }

  async #look (first: Link | undefined): Promise<void> {
    const waitMs = this.#lastRefreshAt + minRetryMs - performance.now()
    if (waitMs > 0) await new Promise(resolve => setTimeout(resolve, waitMs))
    this.#lastRefreshAt = performance.now()
    this.#refreshes++
    let fallback: SlotMap | undefined
    for (const ask of this.#askable(first)) {
      if (this.#closed) return
      try {
        const map = await ask()
        if (map.epoch < this.#epoch && performance.now() - this.#acceptedAt < staleMs) continue
        if (map.ok) return this.#accept(map)
        if (fallback === undefined || map.epoch > fallback.epoch) fallback = map
      } catch (error) {
        this.#failure = error as Error
        if (isFinal(this.#failure)) this.#events.error(this.#failure)
      }
    }
    // Nobody says that all is well: slots without a master, say. What is known of the others still holds.
    if (fallback !== undefined) this.#accept(fallback)
  }

  /** Who can be asked: masters that answer, the given one first, then all other nodes that are known. */
  * #askable (first: Link | undefined): Iterable<() => Promise<SlotMap>> {
    const up = [...this.#masters.values()].filter(({ command }) => command.up)
    const masters = up.filter(({ command, subscribe }) => this.#suspect !== command && this.#suspect !== subscribe)
    const start = masters.findIndex(({ command, subscribe }) => first !== undefined && (command === first || subscribe === first))
    // Another one each time, as a node may have an old view.
    const at = start === -1 ? this.#refreshes : start
    for (let n = 0; n < masters.length; n++) {
      const { command, address } = masters[(at + n) % masters.length] as Master
      yield async () => await command.run(async redis => await readSlotMap(redis, address), askMs)
    }
    this.#suspect = undefined
    const asked = new Set(masters.map(({ address }) => nameOf(address)))
    for (const address of [...this.#nodes, ...this.#source.nodes]) {
      if (asked.has(nameOf(address))) continue
      asked.add(nameOf(address))
      yield async () => await this.#askOnce(address)
    }
  }

  async #askOnce (address: Address): Promise<SlotMap> {
    const redis = connect({ ...this.#source.options, ...address }, 'command')
    try {
      return await withDeadline(new Promise<SlotMap>((resolve, reject) => {
        redis.on('error', reject)
        redis.once('close', () => reject(new Error(`${nameOf(address)} closed the connection`)))
        redis.once('ready', () => { readSlotMap(redis, address).then(resolve, reject) })
      }), askMs, () => { throw new Error(`${nameOf(address)} does not answer`) })
    } finally {
      redis.disconnect()
    }
  }

  #accept (map: SlotMap): void {
    if (this.#closed) return
    this.#failure = undefined
    this.#epoch = map.epoch
    this.#acceptedAt = performance.now()
    this.#nodes = uniqueAddresses(map.nodes.map(node => this.#source.translate(node)))
    const used = new Set<Master>()
    for (const [partition, slot] of this.#slots.entries()) {
      const range = map.ranges.find(({ start, end }) => start <= slot && slot <= end)
      const master = range === undefined ? undefined : this.#master(this.#source.translate(range.master))
      if (master !== undefined) used.add(master)
      this.command[partition]?.route(master?.command)
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
    void closeMaster(master)
  }

  #master (address: Address): Master {
    const known = this.#masters.get(nameOf(address))
    if (known !== undefined) return known
    const make = (role: 'command' | 'subscribe'): Link => new Link({ ...this.#source.options, ...address }, role, this.#deadlineMs)
    const master = { address, command: make('command'), subscribe: this.#receives ? make('subscribe') : undefined, unusedSince: undefined }
    this.#masters.set(nameOf(address), master)
    this.#watch(master.command, this.command)
    const { subscribe } = master
    if (subscribe !== undefined) {
      this.#watch(subscribe, this.subscribe)
      subscribe.redis.on('smessageBuffer', (channel: Buffer, bytes: Buffer) => {
        subscribe.heard()
        this.#events.message(channel, bytes)
      })
      subscribe.redis.on('moved', () => { void this.#subscriptionsMoved(subscribe) })
    }
    return master
  }

  #watch (link: Link, routes: readonly RoutedLink[]): void {
    const each = (act: (route: RoutedLink) => void): void => { for (const route of routes) if (route.target === link) act(route) }
    link.on({
      up: () => {
        each(route => route.linkUp())
        this.#events.changed()
      },
      down: () => {
        // After a hang as after a break: only a new connection is sure to be subscribed to what we think.
        if (routes === this.subscribe) link.reset()
        each(route => route.linkDown())
        this.#events.changed()
        this.#retryMs = minRetryMs
        this.#schedule()
      },
      error: error => this.#events.error(error)
    })
  }

  /** A master took back subscriptions: their slots went to another one, and may even be back by now. */
  async #subscriptionsMoved (link: Link): Promise<void> {
    await this.#refresh(link)
    if (!link.up) return
    const held = subscribedTags(link)
    for (const [partition, route] of this.subscribe.entries()) {
      const isLost = route.target === link && held?.has(this.#tags[partition] ?? '') !== true
      if (isLost && this.#events.subscribed(partition)) route.lost()
    }
  }

  #schedule (): void {
    clearTimeout(this.#timer)
    if (this.#closed) return
    const well = this.complete && this.#failure === undefined
    const delayMs = well ? pollMs : this.#retryMs
    this.#retryMs = well ? minRetryMs : Math.min(2 * this.#retryMs, maxRetryMs)
    // Up to a fifth earlier, so that a thousand instances do not ask in one instant.
    this.#timer = setTimeout(() => { void this.#refresh() }, delayMs * (0.8 + Math.random() * 0.2)).unref()
  }
}
