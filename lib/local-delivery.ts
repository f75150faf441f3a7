import type { Envelope, Target } from './backplane/backplane.ts'
import type { Hub } from './hub.ts'
import type { Sender } from './sender.ts'

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
export class LocalDelivery {
  readonly #hub: Hub
  readonly #sender: Sender
  /** Own messages that are being published, with the targets whose echo arrived already. */
  readonly #publishing = new Map<number, Target[]>()
  /** Own messages delivered without an echo: sequence to targets and time, oldest first. */
  readonly #delivered = new Map<number, { readonly targets: readonly Target[], readonly at: number }>()

  constructor (hub: Hub, sender: Sender) {
    this.#hub = hub
    this.#sender = sender
  }

  /** An own message is about to be published. */
  publishing ({ sequence }: Envelope): void {
    this.#publishing.set(sequence, [])
  }

  /** The publish settled; echoes that come later need no bookkeeping. */
  published ({ sequence }: Envelope): void {
    this.#publishing.delete(sequence)
  }

  /** Delivers an own message to the members here, for those targets whose echo did not arrive. Returns how many connections took it. */
  deliverHere (envelope: Envelope, targets: readonly Target[]): number {
    const heard = this.#publishing.get(envelope.sequence) ?? []
    const missing = targets.filter(target => !includes(heard, target) && this.#hub.holds(target))
    if (missing.length === 0) return 0
    this.#remember(envelope.sequence, missing)
    return missing.reduce((taken, target) => taken + this.#hub.deliver({ ...envelope, target }), 0)
  }

  /** An envelope came from the backplane. Returns how many connections took it. */
  echo (envelope: Envelope): number {
    if (envelope.origin === this.#sender.origin) {
      const delivered = this.#delivered.get(envelope.sequence)
      if (delivered !== undefined && includes(delivered.targets, envelope.target)) return 0
      this.#publishing.get(envelope.sequence)?.push(envelope.target)
    }
    return this.#hub.deliver(envelope)
  }

  #remember (sequence: number, targets: readonly Target[]): void {
    const now = performance.now()
    this.#delivered.set(sequence, { targets, at: now })
    for (const [old, { at }] of this.#delivered) {
      if (this.#delivered.size <= maxRemembered && now - at < echoWindowMs) break
      this.#delivered.delete(old)
    }
  }
}

function includes (targets: readonly Target[], target: Target): boolean {
  return targets.some(({ kind, name }) => kind === target.kind && name === target.name)
}
