import { deferred, withProgress } from '../../../../deadline.ts'
import { hasCode, WebsocketGroupsError } from '../../../../errors.ts'
import { chunks, Throttle } from '../../batching.ts'
import { newChannel, takeAnswer, type Channel } from './channel.ts'
import { Linger } from './linger.ts'
import type { Link } from '../port.ts'

const maxChannelsPerCommand = 512
/** How many channels may wait for an answer together: a deadline should measure Redis, not the commands that were sent before. */
const maxChannelsInFlight = 4 * maxChannelsPerCommand
/** A SUBSCRIBE without an answer after this long leaves the state of the connection unknown: the connection is given up (milliseconds). */
const ackDeadlineMs = 3_000
const retryMs = 1_000

interface SubscriptionEvents {
  /** These channels reach us from now on: for the first time, or again. */
  acked (names: readonly string[]): void
  /** This channel was given up. */
  dropped (name: string): void
  /** Something that `missing` counts may have changed. */
  changed (): void
}

/**
 * Keeps Redis subscribed to exactly the wanted channels: a desired set beside an acknowledged set, reconciled on every change and every new
 * connection. ioredis's own resubscription is off: cut twice in a row it ended with a third of the channels and no error.
 */
export class Subscriptions {
  readonly #link: Link
  readonly #waitMs: number
  readonly #events: SubscriptionEvents
  readonly #lastName: string
  readonly #channels = new Map<string, Channel>()
  /** Channels whose state may differ from what is wanted. */
  readonly #dirty = new Set<string>()
  /** Channels whose SUBSCRIBE failed: they wait for the next try, whatever else is subscribed meanwhile. */
  readonly #refused = new Set<string>()
  #refusal: Error | undefined
  #retryTimer: NodeJS.Timeout | undefined
  /** Channels that nobody needs any longer. */
  readonly #lingering: Linger
  readonly #pace = new Throttle()
  #flushing = false
  /** Commands on the present connection that are not answered yet: what changes meanwhile is sent together after them. */
  #inFlight = 0
  /** When the latest command was answered, whatever the answer. */
  #answeredAt = -Infinity
  #connection = 0
  #interrupted = 0
  #acked = 0

  /** `last` is the channel that a new connection subscribes to after all others: whoever reaches it knows that the others are there. */
  constructor (link: Link, waitMs: number, lingerMs: number, last: string, events: SubscriptionEvents) {
    this.#link = link
    this.#waitMs = waitMs
    this.#lingering = new Linger(lingerMs, names => this.#drop(names))
    this.#events = events
    this.#lastName = last
  }

  get acked (): number { return this.#acked }
  get wanted (): number { return this.#channels.size - this.#lingering.size }

  /** How many channels should be subscribed by now and are not, and why. */
  get problem (): string | undefined {
    if (this.#interrupted === 0) return undefined
    return `${this.#interrupted} channels are not subscribed yet${this.#refusal === undefined ? '' : ` (${this.#refusal.message})`}`
  }

  /** Resolves once Redis acknowledged the channel. A rejection means "not yet": the channel stays wanted. */
  async subscribe (name: string): Promise<void> {
    const channel = this.#channels.get(name) ?? this.#add(name)
    channel.wanted = true
    this.#lingering.delete(name)
    if (channel.acked) return
    this.#dirty.add(name)
    if (!this.#link.up) {
      this.#setInterrupted(channel, true)
      throw this.#link.unavailable()
    }
    this.#flushSoon()
    await this.#acknowledged(channel, name)
  }

  unsubscribe (name: string): void {
    const channel = this.#channels.get(name)
    if (channel === undefined || !channel.wanted) return
    channel.wanted = false
    this.#setInterrupted(channel, false)
    // Callers that still wait for the channel have given it up: an answer that may never come does not help them.
    takeAnswer(channel)?.resolve()
    this.#lingering.add(name)
  }

  /** Whether somebody here needs the channel, be it subscribed or not. */
  wants (name: string): boolean { return this.#channels.get(name)?.wanted ?? false }

  /** Whether somebody here waits for the channel, and may still get it in time. */
  awaits (name: string): boolean { return this.wants(name) && !this.has(name) && !this.interrupted(name) }

  interrupted (name: string): boolean { return this.#channels.get(name)?.interrupted ?? false }

  /** Whether the channel reaches us now. */
  has (name: string): boolean { return this.#channels.get(name)?.acked ?? false }

  /** A new connection: nothing is subscribed on it yet. */
  connected (): void {
    this.disconnected()
    this.#dirty.clear()
    for (const name of this.#channels.keys()) this.#dirty.add(name)
    if (this.#dirty.delete(this.#lastName)) this.#dirty.add(this.#lastName)
    this.#flushSoon()
  }

  disconnected (): void {
    this.#connection++
    this.#inFlight = 0
    this.#acked = 0
    for (const [name, channel] of this.#channels) {
      if (channel.wanted) this.#setInterrupted(channel, true)
      channel.sent = false
      channel.acked = false
      // Redis forgot the channel with the connection.
      if (!channel.wanted) {
        this.#forget(name)
        this.#events.dropped(name)
      }
    }
  }

  /** Drops all channels at once, without lingering. */
  async close (): Promise<void> {
    clearTimeout(this.#retryTimer)
    const subscribed = [...this.#channels].filter(([, channel]) => channel.sent).map(([name]) => name)
    for (const { answer } of this.#channels.values()) answer?.reject(new WebsocketGroupsError('WSG_CLOSED'))
    this.#channels.clear()
    this.#dirty.clear()
    this.#lingering.close()
    this.#pace.close()
    await Promise.all([...chunks(subscribed, maxChannelsPerCommand)].map(async names => await this.#command('unsubscribe', names)))
  }

  #add (name: string): Channel {
    const channel = newChannel()
    this.#channels.set(name, channel)
    return channel
  }

  #forget (name: string): void {
    this.#channels.delete(name)
    this.#dirty.delete(name)
    this.#refused.delete(name)
    this.#lingering.delete(name)
  }

  #acknowledged (channel: Channel, name: string): Promise<void> {
    channel.answer ??= deferred()
    return withProgress(channel.answer.promise, this.#waitMs, () => this.#answeredAt, () => {
      if (channel.wanted && !channel.acked) this.#setInterrupted(channel, true)
      const detail = `the subscription to ${name} was not acknowledged within ${this.#waitMs} ms`
      throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', detail)
    })
  }

  #flushSoon (): void {
    if (!this.#flushing) this.#pace.soon(() => this.#flush(), this.#dirty.size >= maxChannelsPerCommand)
    this.#flushing = true
  }

  #flush (): void {
    this.#flushing = false
    if (!this.#link.up || this.#inFlight > 0) return
    const [subscribe, unsubscribe]: [string[], string[]] = [[], []]
    for (const name of this.#dirty) {
      if (subscribe.length + unsubscribe.length === maxChannelsInFlight) break
      this.#dirty.delete(name)
      const channel = this.#channels.get(name)
      if (channel === undefined || channel.sent === channel.wanted) continue
      channel.sent = channel.wanted
      if (channel.wanted) {
        subscribe.push(name)
      } else {
        // From here on the channel counts as gone: a caller that wants it again has to wait for a new acknowledgement.
        if (channel.acked) this.#acked--
        channel.acked = false
        unsubscribe.push(name)
        this.#events.dropped(name)
      }
    }
    for (const names of chunks(subscribe, maxChannelsPerCommand)) void this.#subscribe(names)
    for (const names of chunks(unsubscribe, maxChannelsPerCommand)) void this.#unsubscribe(names)
  }

  async #subscribe (names: string[]): Promise<void> {
    const connection = this.#connection
    const error = await this.#command('subscribe', names)
    if (connection !== this.#connection) return                // the next connection started over
    const acked: string[] = []
    for (const name of names) {
      const channel = this.#channels.get(name)
      if (channel === undefined) continue                      // closed meanwhile
      const answer = takeAnswer(channel)
      if (error === undefined) {
        channel.acked = true
        this.#acked++
        acked.push(name)
        this.#setInterrupted(channel, false)
        answer?.resolve()
      } else {
        channel.sent = false
        if (channel.wanted) this.#setInterrupted(channel, true)
        this.#refused.add(name)
        answer?.reject(error)
      }
    }
    this.#refusal = error
    if (error !== undefined) this.#retryRefused()
    if (acked.length > 0) this.#events.acked(acked)
    this.#events.changed()
    this.#answered()
  }

  #answered (): void {
    this.#inFlight--
    this.#answeredAt = performance.now()
    if (this.#dirty.size > 0) this.#flushSoon()
  }

  #retryRefused (): void {
    this.#retryTimer ??= setTimeout(() => {
      this.#retryTimer = undefined
      for (const name of this.#refused) this.#dirty.add(name)
      this.#refused.clear()
      this.#flushSoon()
    }, retryMs).unref()
  }

  async #unsubscribe (names: string[]): Promise<void> {
    const connection = this.#connection
    const error = await this.#command('unsubscribe', names)
    if (connection !== this.#connection) return
    if (error !== undefined) return this.#link.reset()
    for (const name of names) {
      if (this.#channels.get(name)?.wanted === false) this.#forget(name)
    }
    this.#answered()
  }

  async #command (verb: 'subscribe' | 'unsubscribe', names: string[]): Promise<Error | undefined> {
    this.#inFlight++
    try {
      const command = this.#link.sharded ? `s${verb}` as const : verb
      await this.#link.run(async redis => await redis[command](...names), ackDeadlineMs)
      return undefined
    } catch (error) {
      // Whether the command was carried out is unknown, and so is the state of the connection.
      if (hasCode(error, 'WSG_TIMEOUT')) this.#link.reset()
      return error as Error
    }
  }

  #setInterrupted (channel: Channel, interrupted: boolean): void {
    if (channel.interrupted === interrupted) return
    channel.interrupted = interrupted
    this.#interrupted += interrupted ? 1 : -1
  }

  /** Unsubscribes channels that nobody wanted again. */
  #drop (names: readonly string[]): void {
    for (const name of names) {
      if (this.#channels.get(name)?.sent === false) {
        this.#forget(name)
        this.#events.dropped(name)
      } else {
        this.#dirty.add(name)
      }
    }
    this.#flushSoon()
  }
}
