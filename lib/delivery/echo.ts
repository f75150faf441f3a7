import type { FastifyBaseLogger } from 'fastify'
import type { Envelope, Target } from '../backplane/backplane.ts'
import type { Hub } from '../hub/hub.ts'
import type { Metrics } from '../metrics.ts'
import type { EnvelopeFactory } from './envelopes.ts'

/** How long a message that was delivered here may still come back from a backplane that hung. */
const echoWindowMs = 300_000
const maxRemembered = 10_000

/**
 * Gives this instance's members a message exactly once, whether it comes back from the backplane or not.
 *
 * Normally the echo from the backplane is what is delivered, as only that gives all instances the same order. When the
 * backplane fails under a message, the members here still get it, and an echo that turns up after all (a hung server wakes and works
 * off what was sent to it) must not be delivered again.
 */
export class EchoFilter {
  readonly #hub: Hub
  readonly #envelopes: EnvelopeFactory
  readonly #metrics: Metrics
  readonly #log: FastifyBaseLogger
  /** Own messages that are being published, by sequence, with the targets whose echo arrived already. */
  readonly #publishing = new Map<number, Target[]>()
  /** Own messages delivered without waiting for an echo that may still come: sequence and time, oldest first. */
  readonly #delivered = new Map<number, number>()

  constructor (hub: Hub, envelopes: EnvelopeFactory, metrics: Metrics, log: FastifyBaseLogger) {
    this.#hub = hub
    this.#envelopes = envelopes
    this.#metrics = metrics
    this.#log = log
  }

  /** An own message is about to be published. */
  publishing ({ sequence }: Envelope): void {
    this.#publishing.set(sequence, [])
  }

  /** The publish settled; echoes that come later need no bookkeeping. */
  published ({ sequence }: Envelope): void {
    this.#publishing.delete(sequence)
  }

  /** Delivers an own message to the members here that no echo reached yet. `mayEcho`: the backplane has it, or may have it. */
  deliverHere (envelope: Envelope, targets: readonly Target[], mayEcho: boolean): void {
    const heard = this.#publishing.get(envelope.sequence) ?? []
    if (heard.length === targets.length) return
    if (mayEcho) this.#remember(envelope.sequence)
    this.#count(targets, this.#hub.deliverExcept(envelope, targets, heard))
  }

  /** A message came from the backplane. */
  receive (envelope: Envelope): void {
    if (envelope.origin === this.#envelopes.origin) {
      if (this.#delivered.has(envelope.sequence)) return
      this.#publishing.get(envelope.sequence)?.push(envelope.target)
    }
    this.#metrics.messagesDelivered++
    this.#count([envelope.target], this.#hub.deliver(envelope))
  }

  #count (targets: readonly Target[], recipients: number): void {
    this.#metrics.framesSent += recipients
    // The objects are only worth making when someone reads them.
    if (this.#log.level !== 'debug' && this.#log.level !== 'trace') return
    for (const { kind, name } of targets) this.#log.debug({ [kind]: name, recipients }, 'message delivered')
  }

  #remember (sequence: number): void {
    const now = performance.now()
    this.#delivered.set(sequence, now)
    for (const [old, at] of this.#delivered) {
      if (this.#delivered.size <= maxRemembered && now - at < echoWindowMs) break
      this.#delivered.delete(old)
    }
  }
}
