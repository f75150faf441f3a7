import { deferred, withDeadline } from '../../../deadline.ts'
import { hasCode, isOutage, WebsocketGroupsError } from '../../../errors.ts'
import { drawId } from '../../../ids.ts'
import type { Appended, AppendTarget, Envelope, LogPosition } from '../../backplane.ts'
import { encodeParts, markRetried } from '../envelope.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import {
  carriesPlaces, decodeAppended, encodeAppend, encodeToOne, onlyTarget, type AppendedTo, type Draft
} from './append-call.ts'
import { Lanes, type Batch, type LaneItem } from './lanes.ts'
import { randomNonce } from './random.ts'
import type { SettingsDifferences } from './settings.ts'

/** The most that may wait in all lanes together. */
const maxWaiting = { up: { messages: 20_000, bytes: 33_554_432 }, queue: { messages: 1_000, bytes: 1_048_576 } } as const
const queueMs = 5_000
const retryMs = 50
/** How many groups make a batch a wide one: wide batches take turns. */
const wideBatch = 100

/** What happens to an append while Redis is out: it fails at once, or waits for Redis for a few seconds. */
export type WhenDown = 'reject' | 'queue'

/** What waits in one queue, or in all queues of a process together. */
export interface Waiting {
  messages: number
  bytes: number
}

interface Item extends LaneItem, Draft {
  /** performance.now() after which the message is given up. */
  deadline: number
  queued: boolean
  /** The message left this process at least once: it may be in the logs. */
  sent: boolean
  resolve (appended: Appended): void
  reject (error: Error): void
}

/**
 * Appends messages to logs in the order of the calls. Each group has a lane; a message to several groups takes its turn in all of their
 * lanes. A lane has one script call under way, and messages that are published meanwhile go together in the next (group commit). This keeps
 * the order of a publisher through retries, and lets a batch be sent again after an unknown outcome: Redis knows the last sequence it
 * stored.
 */
export class AppendQueue {
  readonly #link: Link
  readonly #keys: Keys
  /**
   * A random name instead of the instance's id: otherwise, after a restart, Redis would take new messages for repetitions of those of the
   * process before.
   */
  readonly #publisher = drawId()
  /**
   * The sequence of the last message, in all lanes. The sequence of the envelope cannot be used: callers need not append in the order in
   * which they made their envelopes.
   */
  #sequence = 0
  readonly #whenDown: WhenDown
  readonly #budgetMs: number
  readonly #lanes = new Lanes<Item>(batch => this.#settle(batch))
  readonly #differences: SettingsDifferences
  readonly #waiting: Waiting = { messages: 0, bytes: 0 }
  /** What the limits apply to: the sum over all queues of this process. */
  readonly #total: Waiting
  #up = deferred()
  #closed = false
  #batches = 0
  /** The latest batch to many groups. */
  #wide: Promise<unknown> = Promise.resolve()
  #retries = 0

  /** `differences` collects logs whose settings differ between processes; `total` is shared by the queues that have one limit together. */
  constructor (link: Link, keys: Keys, whenDown: WhenDown, differences: SettingsDifferences, total: Waiting = { messages: 0, bytes: 0 }) {
    this.#total = total
    this.#link = link
    this.#keys = keys
    this.#whenDown = whenDown
    this.#differences = differences
    this.#budgetMs = 2 * link.deadlineMs
    link.on({ up: () => this.#resume() })
  }

  stats (): Record<string, number> {
    return {
      appendBatches: this.#batches,
      appendRetries: this.#retries,
      appendsWaiting: this.#waiting.messages,
      appendsWaitingBytes: this.#waiting.bytes
    }
  }

  /** @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT, WSG_QUEUE_FULL, WSG_CLOSED */
  async append (targets: readonly AppendTarget[], envelope: Envelope, key: string | undefined): Promise<Appended> {
    const { up } = this.#link
    if (this.#closed) throw new WebsocketGroupsError('WSG_CLOSED')
    if (!up && this.#whenDown === 'reject') throw this.#link.unavailable()
    const parts = encodeParts(envelope, carriesPlaces(targets), onlyTarget(targets))
    const bytes = parts.prefix.length + parts.rest.length
    const limit = maxWaiting[up ? 'up' : 'queue']
    if (this.#total.messages >= limit.messages || this.#total.bytes + bytes > limit.bytes) {
      throw new WebsocketGroupsError('WSG_QUEUE_FULL', `${this.#total.messages} messages of ${this.#total.bytes} bytes`)
    }
    this.#count(1, bytes)
    try {
      return await new Promise<Appended>((resolve, reject) => {
        const ms = this.#whenDown === 'queue' ? queueMs : this.#budgetMs
        // All fields by name: an object made with a spread cost as much as all the rest of this call.
        this.#lanes.add({
          prefix: parts.prefix,
          rest: parts.rest,
          entries: parts.entries,
          whole: parts.whole,
          targets,
          key,
          bytes,
          sequence: ++this.#sequence,
          nonce: randomNonce(),
          deadline: performance.now() + ms,
          queued: !up,
          sent: false,
          resolve,
          reject
        })
      })
    } finally {
      this.#count(-1, -bytes)
    }
  }

  #count (messages: number, bytes: number): void {
    for (const waiting of [this.#waiting, this.#total]) {
      waiting.messages += messages
      waiting.bytes += bytes
    }
  }

  close (): void {
    this.#closed = true
    this.#resume()
    for (const { reject, sent } of this.#lanes.clear()) reject(new WebsocketGroupsError(sent ? 'WSG_TIMEOUT' : 'WSG_CLOSED'))
  }

  /** Called when the link is back or the queue was closed: wakes what waits. */
  #resume (): void {
    this.#up.resolve()
    this.#up = deferred()
  }

  /** Sends a batch, again if necessary, until its outcome is known or its time is over. Never rejects. */
  async #settle ({ items, lanes }: Batch<Item>): Promise<void> {
    let failure: Error | undefined
    for (;;) {
      // The deadline limits the wait for Redis. While Redis answers, a message may wait longer for those before it.
      if (failure !== undefined || !this.#link.up) expire(items, failure)
      if (items.length === 0) return
      try {
        return resolveAll(items, await this.#sendInTurn(items, lanes.length))
      } catch (error) {
        failure = error as Error
      }
      const unknown = hasCode(failure, 'WSG_TIMEOUT')
      if (unknown) for (const item of items) markSent(item)
      const mayHelp = unknown || items.some(({ sent }) => sent) || this.#whenDown === 'queue'
      if (this.#closed || !mayHelp || !isOutage(failure)) return rejectAll(items, failure)
      this.#retries++
      if (!this.#link.up) for (const item of [...items, ...lanes.flatMap(lane => lane.items)]) item.queued = true
      await this.#whenUp((items[0]?.deadline ?? 0) - performance.now())
    }
  }

  /** Sends a batch. Batches to many groups keep Redis busy: they go one after another, so that what others send comes between. */
  #sendInTurn (items: readonly Item[], groups: number): Promise<ReadonlyMap<string, AppendedTo>> {
    if (groups < wideBatch) return this.#send(items)
    const sent = this.#wide.then(async () => {
      // The wait for this turn does not count: Redis did not cause it.
      for (const item of items) if (!item.sent) item.deadline = Math.max(item.deadline, performance.now() + this.#budgetMs)
      return await this.#send(items)
    })
    this.#wide = sent.catch(() => undefined)
    return sent
  }

  async #send (items: readonly Item[]): Promise<ReadonlyMap<string, AppendedTo>> {
    this.#batches++
    const batch = { publisher: this.#publisher, key: items[0]?.key, messages: items }
    const { script, keys, args, groups } = encodeToOne(this.#keys, batch) ?? encodeAppend(this.#keys, batch)
    const appended = decodeAppended(await this.#link.bytesScript(script, keys, args), groups)
    for (const [group, { difference }] of appended) if (difference !== undefined) this.#differences.add(group, difference)
    return appended
  }

  /** Waits until the link works; after a refusal of Redis, for a moment. Takes `leftMs` at most. */
  async #whenUp (leftMs: number): Promise<void> {
    await withDeadline(this.#up.promise, this.#link.up ? Math.min(leftMs, retryMs) : leftMs, () => undefined)
  }
}

/** Notes that the message may be in the logs from now on: if it is stored again, readers must be able to tell. */
function markSent (item: Item): void {
  item.sent = true
  markRetried(item)
}

function resolveAll (items: readonly Item[], appended: ReadonlyMap<string, AppendedTo>): void {
  // From the last message, which `appended` is about, to the first.
  for (const { targets, nonce, queued, resolve } of items.toReversed()) {
    const positions = new Map<string, LogPosition>()
    const logLengths: number[] = []
    let duplicate = true
    for (const { group } of targets) {
      const outcome = appended.get(group)
      if (outcome === undefined) continue                       // the group keeps no log
      const { epoch, known, length } = outcome
      if (length > 0) logLengths.push(length)
      outcome.length = 0
      positions.set(group, known ?? { epoch, offset: outcome.offset--, nonce: nonce.readUInt32BE() })
      duplicate &&= known !== undefined
    }
    resolve({ positions, queued, duplicate, logLengths })
  }
}

/**
 * Gives up the messages whose time is over. This is safe after an unknown outcome, because they are the oldest ones and Redis knows a batch
 * by its last message: a batch that was stored is still recognized, and of one that was not the rest is stored now.
 */
function expire (items: Item[], failure: Error | undefined): void {
  const now = performance.now()
  const kept = items.findIndex(({ deadline }) => deadline > now)
  const late = items.splice(0, kept === -1 ? items.length : kept)
  if (late.length === 0) return
  rejectAll(late, failure ?? new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'too many messages were waiting before this one'))
}

function rejectAll (items: readonly Item[], failure: Error): void {
  for (const { sent, reject } of items) {
    // Only messages that never left this process were surely not sent.
    const maybeSent = sent && hasCode(failure, 'WSG_BACKPLANE_UNAVAILABLE')
    reject(maybeSent ? new WebsocketGroupsError('WSG_TIMEOUT', failure.message, { cause: failure }) : failure)
  }
}
