import type { Target } from '../backplane/backplane.ts'
import type { Data, SpanFacts, Tracing } from '../types.ts'
import { labelOf, userOfLog } from '../backplane/user-log.ts'

/** Sends a message, in a span when the application traces. The span has no user ids. */
export function inSendSpan<Result> (
  tracing: Tracing | undefined, targets: readonly Target[], data: Data, send: () => Promise<Result>
): Promise<Result> {
  if (tracing === undefined) return send()
  return tracing.run({ name: 'send', ...addressOf(targets), bytes: sizeOf(data) }, send)
}

/** Reads what was missed of the log of a group, or of a user, in a span. */
export async function inRepairSpan<Result> (tracing: Tracing, log: string, read: () => Promise<Result>): Promise<Result> {
  return await tracing.run({ name: 'repair', group: labelOf(log) }, read)
}

/** A message that connections of this instance got, and that somebody traces. Times are those of `Date.now()`. */
interface TracedDelivery {
  readonly target: Target
  readonly bytes: number
  readonly recipients: number
  readonly traceparent: string
  readonly startedAt: number
  readonly endedAt: number
}

/** How many deliveries wait for their spans at most, and how long (milliseconds). */
const maxWaiting = 64
const maxWaitMs = 1_000

/**
 * Tells the tracing system of deliveries, of many in a row: a span that is made by itself, between writes to a thousand sockets, takes
 * several times as long as one of many, because nothing that it needs is left in the caches of the CPU.
 */
export class DeliverySpans {
  readonly #tracing: Tracing
  readonly #failed: (error: unknown) => void
  #waiting: TracedDelivery[] = []
  #timer: NodeJS.Timeout | undefined

  constructor (tracing: Tracing, failed: (error: unknown) => void) {
    this.#tracing = tracing
    this.#failed = failed
  }

  add (delivery: TracedDelivery): void {
    this.#waiting.push(delivery)
    if (this.#waiting.length >= maxWaiting) this.flush()
    else this.#timer ??= setTimeout(() => this.flush(), maxWaitMs).unref()
  }

  flush (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const deliveries = this.#waiting
    this.#waiting = []
    for (const delivery of deliveries) this.#tell(delivery)
  }

  /** Never throws: neither deliveries nor the other spans depend on whether this one could be made. */
  #tell ({ target, bytes, recipients, traceparent, startedAt, endedAt }: TracedDelivery): void {
    try {
      this.#tracing.delivered({ name: 'deliver', ...addressOf([target]), bytes, recipients }, traceparent, startedAt, endedAt)
    } catch (error) {
      this.#failed(error)
    }
  }
}

/** `undefined` for data that cannot be sent: sending it throws, and the span records that. */
function sizeOf (data: unknown): number | undefined {
  if (typeof data === 'string') return Buffer.byteLength(data)
  return ArrayBuffer.isView(data) ? data.byteLength : undefined
}

function addressOf (targets: readonly Target[]): Pick<SpanFacts, 'to' | 'group'> {
  const [first] = targets
  // The log of a user counts as the user: its name would show the user id.
  if (first?.kind === 'group' && userOfLog(first.name) !== undefined) return { to: 'user' }
  const group = targets.length === 1 && first?.kind === 'group' ? first.name : undefined
  return { to: first?.kind, ...(group === undefined ? {} : { group }) }
}
