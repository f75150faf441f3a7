import { randomFillSync } from 'node:crypto'
import { deferred, withDeadline } from '../../../deadline.ts'
import { hasCode, WebsocketGroupsError } from '../../../errors.ts'
import { drawId } from '../../../ids.ts'
import type { Appended, Envelope, LogPosition, LogSettings } from '../../backplane.ts'
import { encodeBody } from '../envelope.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/link.ts'
import { append } from './scripts.ts'

const maxBatchMessages = 64
const maxBatchBytes = 262_144
/** What may wait in all lanes together. */
const maxWaiting = { up: { messages: 20_000, bytes: 33_554_432 }, queue: { messages: 1_000, bytes: 1_048_576 } } as const
const queueMs = 5_000
const idempotencyMs = 300_000
/** The meta outlives the messages by far: without it the next message would look like a loss. */
const minMetaTtlMs = 604_800_000

/** What happens to an append while Redis is out: it fails at once, or waits for Redis for a few seconds. */
export type WhenDown = 'reject' | 'queue'

interface Item {
  readonly sequence: number
  readonly nonce: Buffer
  readonly body: Buffer
  readonly log: LogSettings
  readonly key: string | undefined
  /** performance.now() after which it is given up. */
  readonly deadline: number
  queued: boolean
  /** It left this process at least once: it may be in the log. */
  sent: boolean
  resolve (appended: Appended): void
  reject (error: Error): void
}

interface Lane { readonly group: string, readonly items: Item[] }

/**
 * Appends to logs, one lane per group: one script call under way, what is published meanwhile goes together in the next. That is group commit, it keeps a
 * publisher's order through retries, and it is what lets a batch be sent again after an unknown outcome: Redis knows the last sequence it stored.
 */
export class AppendQueue {
  readonly #link: Link
  readonly #keys: Keys
  /** Drawn here and not the instance's id: another lane's sequence under the same name, from before a restart say, would suppress messages of ours. */
  readonly #publisher = drawId()
  /** Of the last message, in all lanes. The envelope's own would do only if all callers appended in the order they made them. */
  #sequence = 0
  readonly #whenDown: WhenDown
  readonly #budgetMs: number
  readonly #lanes = new Map<string, Lane>()
  #waiting = 0
  #waitingBytes = 0
  #up = deferred()
  #closed = false
  #batches = 0
  #retries = 0

  constructor (link: Link, keys: Keys, whenDown: WhenDown) {
    this.#link = link
    this.#keys = keys
    this.#whenDown = whenDown
    this.#budgetMs = 2 * link.deadlineMs
    link.on({ up: () => this.#resume() })
  }

  stats (): Record<string, number> {
    return { appendBatches: this.#batches, appendRetries: this.#retries, appendsWaiting: this.#waiting }
  }

  /** @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT, WSG_QUEUE_FULL */
  async append (group: string, envelope: Envelope, log: LogSettings, key: string | undefined): Promise<Appended> {
    const { up } = this.#link
    if (this.#closed) throw new WebsocketGroupsError('WSG_CLOSED')
    if (!up && this.#whenDown === 'reject') throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', this.#link.problem)
    const body = encodeBody(envelope, { kind: 'group', name: group })
    const limit = maxWaiting[up ? 'up' : 'queue']
    if (this.#waiting >= limit.messages || this.#waitingBytes + body.length > limit.bytes) {
      throw new WebsocketGroupsError('WSG_QUEUE_FULL', `${this.#waiting} messages of ${this.#waitingBytes} bytes`)
    }
    this.#waiting++
    this.#waitingBytes += body.length
    try {
      return await new Promise<Appended>((resolve, reject) => {
        const ms = this.#whenDown === 'queue' ? queueMs : this.#budgetMs
        this.#enqueue(group, {
          sequence: ++this.#sequence, nonce: randomNonce(), body, log, key, deadline: performance.now() + ms, queued: !up, sent: false, resolve, reject
        })
      })
    } finally {
      this.#waiting--
      this.#waitingBytes -= body.length
    }
  }

  close (): void {
    this.#closed = true
    this.#resume()
    for (const { items } of this.#lanes.values()) {
      for (const { reject, sent } of items.splice(0)) reject(new WebsocketGroupsError(sent ? 'WSG_TIMEOUT' : 'WSG_CLOSED'))
    }
  }

  /** The link is back, or the queue was closed: what waits goes on. */
  #resume (): void {
    this.#up.resolve()
    this.#up = deferred()
  }

  #enqueue (group: string, item: Item): void {
    const lane = this.#lanes.get(group)
    if (lane !== undefined) {
      lane.items.push(item)
      return
    }
    const opened: Lane = { group, items: [item] }
    this.#lanes.set(group, opened)
    // One tick later, so that all publishes of this tick go together.
    queueMicrotask(() => { void this.#run(opened) })
  }

  async #run (lane: Lane): Promise<void> {
    while (lane.items.length > 0) await this.#settle(lane, takeBatch(lane.items))
    this.#lanes.delete(lane.group)
  }

  /** Sends a batch until its outcome is known or its time is over. Never rejects. */
  async #settle (lane: Lane, batch: Item[]): Promise<void> {
    let failure: Error | undefined
    for (;;) {
      expire(batch, failure)
      if (batch.length === 0) return
      try {
        return resolveAll(batch, await this.#send(lane.group, batch))
      } catch (error) {
        failure = error as Error
      }
      const unknown = hasCode(failure, 'WSG_TIMEOUT')
      if (unknown) for (const item of batch) item.sent = true
      const retry = (unknown || batch.some(({ sent }) => sent) || this.#whenDown === 'queue') && hasCode(failure, 'WSG_TIMEOUT', 'WSG_BACKPLANE_UNAVAILABLE')
      if (!retry || this.#closed) return rejectAll(batch, failure)
      this.#retries++
      if (!this.#link.up) for (const item of [...batch, ...lane.items]) item.queued = true
      await this.#whenUp((batch[0]?.deadline ?? 0) - performance.now())
    }
  }

  async #send (group: string, batch: readonly Item[]): Promise<{ readonly last: LogPosition, readonly duplicate: boolean }> {
    const [first] = batch
    const last = batch.at(-1)
    if (first === undefined || last === undefined) throw new RangeError('an empty batch')
    const { log, key } = first
    const keys = [this.#keys.logMeta(group), this.#keys.log(group), ...(key === undefined ? [] : [this.#keys.idempotency(group, key)])]
    this.#batches++
    const [epoch, offset, nonce, duplicate] = await this.#link.bytesScript(append, keys, [
      this.#keys.channel({ kind: 'group', name: group }), log.maxMessages, log.ttlMs, Math.max(minMetaTtlMs, 2 * log.ttlMs), random(8), this.#publisher,
      last.sequence, idempotencyMs, ...batch.flatMap(({ nonce, body }) => [nonce, body])
    ]) as [Buffer, number, Buffer, number]
    return { last: { epoch: epoch.toString('latin1'), offset, nonce: nonce.readUInt32BE() }, duplicate: duplicate === 1 }
  }

  /** Until the link works, or for a moment when it does and Redis said no; `leftMs` at most. */
  async #whenUp (leftMs: number): Promise<void> {
    await withDeadline(this.#up.promise, this.#link.up ? Math.min(leftMs, 50) : leftMs, () => undefined)
  }
}

/** From the front: alike in their log settings; a message with an idempotency key goes alone. */
function takeBatch (items: Item[]): Item[] {
  const [first] = items
  let size = 0
  let bytes = 0
  for (const item of items) {
    const fits = size < maxBatchMessages && (size === 0 || bytes + item.body.length <= maxBatchBytes)
    if (!fits || (size > 0 && (item.key !== undefined || first?.key !== undefined)) || !sameLog(item.log, first?.log)) break
    size++
    bytes += item.body.length
  }
  return items.splice(0, size)
}

function sameLog (a: LogSettings, b: LogSettings | undefined): boolean {
  return a === b || (a.maxMessages === b?.maxMessages && a.ttlMs === b.ttlMs)
}

function resolveAll (batch: readonly Item[], { last, duplicate }: { readonly last: LogPosition, readonly duplicate: boolean }): void {
  for (const [index, { nonce, queued, resolve }] of batch.entries()) {
    const position = duplicate ? last : { ...last, offset: last.offset - (batch.length - 1 - index), nonce: nonce.readUInt32BE() }
    resolve({ position, queued, duplicate })
  }
}

/**
 * Gives up the messages whose time is over. They are the first ones, and that is what allows it after an unknown outcome: Redis knows a batch by its last
 * message, so a batch that was stored whole is still recognized, and of one that was not the rest is stored now.
 */
function expire (batch: Item[], failure: Error | undefined): void {
  const now = performance.now()
  const kept = batch.findIndex(({ deadline }) => deadline > now)
  const late = batch.splice(0, kept === -1 ? batch.length : kept)
  if (late.length > 0) rejectAll(late, failure ?? new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'too many messages before it'))
}

function rejectAll (batch: readonly Item[], failure: Error): void {
  for (const { sent, reject } of batch) {
    // "Not sent" is only true of what never left.
    reject(sent && hasCode(failure, 'WSG_BACKPLANE_UNAVAILABLE') ? new WebsocketGroupsError('WSG_TIMEOUT', failure.message, { cause: failure }) : failure)
  }
}

function randomNonce (): Buffer {
  const nonce = random(4)
  // 0 stands for "no message".
  if (nonce.readUInt32BE() === 0) nonce[3] = 1
  return nonce
}

const pool = Buffer.allocUnsafe(8_192)
let poolUsed = pool.length

/** Many at once from the system: one by one they cost as much as the rest of an append. */
function random (size: number): Buffer {
  if (poolUsed + size > pool.length) {
    randomFillSync(pool)
    poolUsed = 0
  }
  poolUsed += size
  return Buffer.from(pool.subarray(poolUsed - size, poolUsed))
}
