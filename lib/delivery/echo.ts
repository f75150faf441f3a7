import type { FastifyBaseLogger } from 'fastify'
import type { Envelope, Target } from '../backplane/backplane.ts'
import { BoundedMap } from '../bounded-map.ts'
import type { Hub } from '../hub/hub.ts'
import { oncePerMinute } from '../logging.ts'
import type { Metrics } from '../metrics.ts'
import type { EnvelopeFactory } from './envelopes.ts'
import { DeliverySpans } from './spans.ts'

/** How long the echo of a message may take (milliseconds): a backplane that hung still carries out what it was sent. */
const maxAgeMs = 300_000
const maxWeight = 10_000

/**
 * Gives this instance's members a message exactly once, whether it comes back from the backplane or not.
 *
 * Normally the echo from the backplane is what is delivered, as only that gives all instances the same order. When the backplane fails
 * during a publish, the members here still get the message, and an echo that arrives after all must not be delivered again.
 */
export class EchoFilter {
  readonly #hub: Hub
  readonly #envelopes: EnvelopeFactory
  readonly #metrics: Metrics
  readonly #log: FastifyBaseLogger
  readonly #spans: DeliverySpans | undefined
  /** The targets whose echo arrived already, by the sequence of a message of this instance that is being published. */
  readonly #publishing = new Map<number, Target[]>()
  /** The sequences of this instance's messages that were delivered without their echo, which may still come. */
  readonly #delivered = new BoundedMap<number, true>({ maxWeight, maxAgeMs })

  constructor (hub: Hub, envelopes: EnvelopeFactory, metrics: Metrics, log: FastifyBaseLogger) {
    this.#hub = hub
    this.#envelopes = envelopes
    this.#metrics = metrics
    this.#log = log
    const { tracing } = metrics
    const failed = oncePerMinute(log, 'tracing_failed')
    this.#spans = tracing === undefined ? undefined : new DeliverySpans(tracing, error => failed({ err: error }))
  }

  /** A message of this instance is about to be published. */
  publishing ({ sequence }: Envelope): void {
    this.#publishing.set(sequence, [])
  }

  /** The publish settled; echoes that come later need no bookkeeping. */
  published ({ sequence }: Envelope): void {
    this.#publishing.delete(sequence)
  }

  /**
   * Delivers a message of this instance to the members here that no echo has reached yet. `mayEcho`: the backplane has it, or may have it.
   */
  deliverHere (envelope: Envelope, targets: readonly Target[], mayEcho: boolean): void {
    const echoed = this.#publishing.get(envelope.sequence) ?? []
    if (echoed.length === targets.length) return
    if (mayEcho) this.#delivered.set(envelope.sequence, true)
    this.#count(targets, this.#hub.deliverExcept(envelope, targets, echoed))
  }

  /** A message came from the backplane. */
  receive (envelope: Envelope): void {
    if (envelope.origin === this.#envelopes.origin) {
      if (this.#delivered.has(envelope.sequence)) return
      this.#publishing.get(envelope.sequence)?.push(envelope.target)
    }
    this.#metrics.messagesDelivered++
    const { target, payload, at, trace } = envelope
    const startedAt = trace === undefined ? 0 : Date.now()
    const recipients = this.#hub.deliver(envelope)
    this.#count([target], recipients)
    if (recipients === 0) return
    const endedAt = Date.now()
    if (trace !== undefined) this.#spans?.add({ target, bytes: payload.length, recipients, traceparent: trace, startedAt, endedAt })
    if (at !== undefined) this.#metrics.timings.delivery.observe((endedAt - at) / 1_000)
  }

  /** Nothing is delivered any more. */
  close (): void {
    this.#spans?.flush()
  }

  #count (targets: readonly Target[], recipients: number): void {
    this.#metrics.framesSent += recipients
    // Making the objects costs more than the check.
    if (this.#log.level !== 'debug' && this.#log.level !== 'trace') return
    for (const { kind, name } of targets) this.#log.debug({ [kind]: name, recipients }, 'message delivered')
  }
}
