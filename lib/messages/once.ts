import { createHash } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../connection/error-answer.ts'
import { Refusal, Reply, type MessageAnswer } from '../connection/framed/message-answer.ts'
import { RateTable } from '../connection/inbound/rate.ts'
import { withDeadline } from '../deadline.ts'
import { WebsocketGroupsError } from '../errors.ts'
import { oncePerMinute } from '../logging.ts'
import type { Registry } from '../types.ts'

/** Limits the keys of one client: each key takes a log in Redis for as long as logs live. */
const keysPerOwner = { perSecond: 10, burst: 100 }
const maxOwners = 10_000
/** How long a second message with a key waits for the answer to the first (milliseconds). */
const patienceMs = 10_000
/** Pauses between reads of the log double, from the first of these to the second (milliseconds). */
const [firstPauseMs, maxPauseMs] = [25, 400]

/** The entry that claims a key. No answer looks like it: answers are JSON. */
const claim = 'claimed'

/** An answer as the log of its key stores it. */
type Stored =
  | { readonly json: string }
  | { readonly base64: string }
  | { readonly empty: true }
  | { readonly error: ReturnType<typeof describeError> }

/**
 * Handles messages with the same key once in the cluster, for five minutes; the answer is known for as long as logs live.
 * Each key has a log of its own: one entry claims the key, another one is the answer to messages that come later with the same key.
 */
export class Once {
  readonly #registry: Pick<Registry, 'broadcastToGroup' | 'history'>
  readonly #warnNotStored: (fields: object) => void
  readonly #rates = new RateTable(keysPerOwner, maxOwners)
  /** Handlers under way here, by the log of their key: a client mostly comes back to the same instance, which then needs no log. */
  readonly #running = new Map<string, Promise<MessageAnswer>>()

  constructor (registry: Pick<Registry, 'broadcastToGroup' | 'history'>, log: FastifyBaseLogger) {
    this.#registry = registry
    this.#warnNotStored = oncePerMinute(log, 'answer_not_stored')
  }

  /**
   * `owner`: who sent the key; equal keys of two owners differ.
   * @throws {WebsocketGroupsError} WSG_RATE_LIMITED, and as `broadcastToGroup`
   */
  async run (owner: string, key: string, run: () => Promise<MessageAnswer>): Promise<MessageAnswer> {
    if (this.#rates.take(owner) > 0) throw new WebsocketGroupsError('WSG_RATE_LIMITED')
    const group = `wsg.once:${createHash('sha256').update(JSON.stringify([owner, key])).digest('base64url')}`
    const running = this.#running.get(group)
    if (running !== undefined) return await withDeadline(running, patienceMs, late)
    const first = this.#runOnce(group, run).finally(() => this.#running.delete(group))
    this.#running.set(group, first)
    return await first
  }

  async #runOnce (group: string, run: () => Promise<MessageAnswer>): Promise<MessageAnswer> {
    const { duplicate } = await this.#registry.broadcastToGroup(group, claim, { idempotencyKey: 'claim' })
    if (duplicate === true) return await this.#answerOf(group)
    const answer = await run()
    try {
      await this.#registry.broadcastToGroup(group, JSON.stringify(toStored(answer)))
    } catch (error) {
      // The handler is done, so this client gets the answer even though the answer cannot be stored. A later message with the same key is
      // answered with WSG_TIMEOUT: the first message may or may not have taken effect.
      this.#warnNotStored({ err: error })
    }
    return answer
  }

  /**
   * Waits for the answer of the instance that claimed the key. Reads the log again and again: a notification would cost all instances a
   * message for each answer.
   */
  async #answerOf (group: string): Promise<MessageAnswer> {
    const givesUpAt = performance.now() + patienceMs
    for (let pauseMs = firstPauseMs; performance.now() < givesUpAt; pauseMs = Math.min(2 * pauseMs, maxPauseMs)) {
      const { messages } = await this.#registry.history(group, { since: 'start' })
      // A large answer may have pushed the claim out of the log.
      const answer = messages.find(({ data }) => data.toString() !== claim)
      if (answer !== undefined) return fromStored(JSON.parse(answer.data.toString()) as Stored)
      await sleep(pauseMs)
    }
    return late()
  }
}

function late (): never {
  throw new WebsocketGroupsError('WSG_TIMEOUT', 'the first message with this key is still being handled')
}

function toStored (answer: MessageAnswer): Stored {
  if (!(answer instanceof Reply)) return { error: describeError((answer as Refusal).error) }
  const { data } = answer
  if (data === undefined) return { empty: true }
  return 'json' in data ? data : { base64: Buffer.from(data.bytes).toString('base64') }
}

function fromStored (stored: Stored): MessageAnswer {
  if ('json' in stored) return new Reply(stored)
  if ('base64' in stored) return new Reply({ bytes: Buffer.from(stored.base64, 'base64') })
  if ('empty' in stored) return new Reply(undefined)
  const { code, message, details } = stored.error
  // The first message was answered with this error, so clients may see it.
  return new Refusal(Object.assign(new Error(message), { code, details, statusCode: 400 }))
}
