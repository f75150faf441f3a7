import type { FastifyBaseLogger } from 'fastify'
import { deferred, withDeadline } from '../../deadline.ts'
import { WebsocketGroupsError } from '../../errors.ts'

/** Whether a publisher can use Redis. Its calls wait until that is known. */
export class Decision {
  readonly #logger: FastifyBaseLogger | undefined
  readonly #made = deferred()
  readonly #failed = deferred()
  #known = false
  #refusal: Error | undefined
  #worked = false
  #final = false

  constructor (logger: FastifyBaseLogger | undefined) {
    this.#logger = logger
  }

  /** Resolves once it is known whether there is a Redis that can be used. */
  get made (): Promise<void> {
    return this.#made.promise
  }

  /** Why Redis cannot be used; `undefined` while it can be, or nothing is known yet. */
  get refusal (): Error | undefined {
    return this.#refusal
  }

  /** Redis could be used once. */
  get worked (): boolean {
    return this.#worked
  }

  /** Nothing changes it any more. */
  get final (): boolean {
    return this.#final
  }

  /** Replaces an earlier decision: Redis may come up after the first calls gave up. */
  make (refusal: Error | undefined): void {
    if (this.#final) return
    // Each new attempt to connect may fail in the same way.
    const isNews = refusal !== undefined && refusal.message !== this.#refusal?.message
    this.#refusal = refusal
    this.#known = true
    this.#worked ||= refusal === undefined
    if (isNews) this.#logger?.warn({ err: refusal }, 'publisher cannot use Redis')
    this.#made.resolve()
  }

  /** An attempt to connect failed, which decides nothing. */
  failed (): void {
    this.#failed.resolve()
  }

  /** Resolves when the decision is made, or this many milliseconds after an attempt to connect failed. */
  async attempted (ms: number): Promise<void> {
    await Promise.race([this.made, this.#failed.promise.then(async () => await withDeadline(this.made, ms, () => undefined))])
  }

  /**
   * The publisher closes, and the decision stays as it is. `usable`: a part of Redis can be used, if nothing was decided yet. Where none
   * can, all that waits or follows ends with WSG_CLOSED.
   */
  close (usable: boolean): void {
    this.#final = true
    if (this.#known ? this.#refusal !== undefined : !usable) this.#refusal = new WebsocketGroupsError('WSG_CLOSED')
    this.#made.resolve()
  }
}
