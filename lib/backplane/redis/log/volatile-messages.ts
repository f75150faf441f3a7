import type { LocalInstance } from '../../backplane.ts'
import type { StoredEnvelope } from '../envelope.ts'
import type { CopyOrder, Holder } from './copy-order.ts'

/** How much waits per group. No log has it, so what comes beyond is delivered at once, and all that waits before it. */
const maxWaiting = { messages: 1_000, bytes: 262_144 } as const

/** Messages of one group that wait for the log of another one, oldest first. */
interface VolatileQueue extends Holder {
  readonly messages: Array<{ readonly envelope: StoredEnvelope, readonly cameAt: number }>
  bytes: number
}

/**
 * Delivers the messages that stand in no log. One that went to groups with a log, too, waits as its copies there do (see `CopyOrder`), and
 * what follows it in its group waits behind it. Members who join meanwhile get none of it: it was sent before.
 */
export class VolatileMessages {
  readonly #order: CopyOrder
  readonly #local: Pick<LocalInstance, 'deliver'>
  readonly #queues = new Map<string, VolatileQueue>()

  constructor (order: CopyOrder, local: Pick<LocalInstance, 'deliver'>) {
    this.#order = order
    this.#local = local
  }

  receive (envelope: StoredEnvelope): void {
    const { target: { kind, name }, payload } = envelope
    const waiting = kind === 'group' ? this.#queues.get(name) : undefined
    if (waiting === undefined && envelope.places === undefined) return this.#local.deliver(envelope)
    const queue = waiting ?? { group: name, messages: [], bytes: 0 }
    queue.messages.push({ envelope: { ...envelope, heldSince: Date.now() }, cameAt: performance.now() })
    queue.bytes += payload.length
    if (waiting === undefined) {
      this.#queues.set(name, queue)
      this.wake(queue)
    } else if (queue.messages.length > maxWaiting.messages || queue.bytes > maxWaiting.bytes) {
      this.forget(name)
      for (const { envelope } of queue.messages) this.#local.deliver(envelope)
    }
  }

  /** The log that the holder waits for came on. */
  wake (holder: Holder): void {
    const queue = this.#queues.get(holder.group)
    if (queue !== holder) return
    const held = queue.messages.findIndex(({ envelope, cameAt }) => {
      if (!this.#order.mayDeliver(queue, envelope, cameAt)) return true
      this.#local.deliver(envelope)
      return false
    })
    if (held === -1) this.#queues.delete(queue.group)
    else for (const { envelope } of queue.messages.splice(0, held)) queue.bytes -= envelope.payload.length
  }

  /** The group is no longer subscribed. */
  forget (group: string): void {
    const queue = this.#queues.get(group)
    if (queue === undefined) return
    this.#queues.delete(group)
    this.#order.gone(queue)
  }
}
