import type { Link } from '../port.ts'
import type { Subscriptions } from './subscriptions.ts'

/** How often the probe looks whether anything came (milliseconds). */
const intervalMs = 5_000
/** How many probes in a row may stay away. */
const missesToReset = 2
/** An envelope of type 6, which no reader of envelopes acts on. */
const probeBytes = Buffer.alloc(25)
probeBytes[0] = 0xd1
probeBytes[1] = 1
probeBytes[24] = 6

/**
 * Notices when the subscribe link seems healthy but brings nothing, for instance because it hangs on to a master that was replaced. When
 * nothing came for a while, the command link publishes a probe to this instance's own channel. Under traffic that costs nothing.
 */
export class PubSubProbe {
  readonly #command: Link
  readonly #subscribe: Link
  readonly #subscriptions: Pick<Subscriptions, 'has'>
  readonly #channel: string
  readonly #timer: NodeJS.Timeout
  #active = true
  #misses = 0
  /** How many probes in a row may stay away now: twice as many after each reset that did not help. */
  #patience = missesToReset

  constructor (command: Link, subscribe: Link, subscriptions: Pick<Subscriptions, 'has'>, channel: string, everyMs = intervalMs) {
    this.#command = command
    this.#subscribe = subscribe
    this.#subscriptions = subscriptions
    this.#channel = channel
    this.#timer = setInterval(() => { void this.#tick() }, everyMs).unref()
  }

  /** Something came through the subscribe link. Returns whether it was a probe. */
  received (bytes: Buffer): boolean {
    this.#active = true
    this.#misses = 0
    this.#patience = missesToReset
    return bytes.length === probeBytes.length && bytes.equals(probeBytes)
  }

  close (): void {
    clearInterval(this.#timer)
  }

  async #tick (): Promise<void> {
    // Without the subscription nothing could come back, and that would say nothing about the link.
    if (!this.#command.up || !this.#subscribe.up || !this.#subscriptions.has(this.#channel)) return
    if (this.#active) {
      this.#active = false
      return
    }
    if (++this.#misses > this.#patience) {
      this.#misses = 0
      this.#patience *= 2
      return this.#subscribe.reset()
    }
    try {
      const command = this.#command.sharded ? 'spublish' : 'publish'
      await this.#command.run(async redis => await redis[command](this.#channel, probeBytes))
    } catch {
      this.#misses--                               // the command link has trouble of its own: that says nothing about the other
    }
  }
}
