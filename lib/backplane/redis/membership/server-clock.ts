/**
 * The clock of Redis by which leases end, as far as it was seen. It may be set, and after a failover it is another one: when it goes ahead
 * all leases look as if they were over, and when it goes back those of the dead last until it is where it was.
 */
export class ServerClock {
  readonly #leaseMs: number
  /** What it showed last, and when that was by the clock of this process. */
  #shown: { readonly ms: number, readonly at: number } | undefined
  #patientUntil = -Infinity

  constructor (leaseMs: number) {
    this.#leaseMs = leaseMs
  }

  /** What it shows now, unless it was set (milliseconds since 1970); 0 where nobody knows. */
  get expectedMs (): number {
    return this.#shown === undefined ? 0 : Math.round(this.#shown.ms + performance.now() - this.#shown.at)
  }

  /** Whether leases that are over may be over because the clock was set: those who live have not all renewed theirs since. */
  get settling (): boolean {
    return performance.now() < this.#patientUntil
  }

  /** The clock showed `ms` where `expectedMs` was expected. */
  shows (ms: number, expectedMs: number): void {
    if (expectedMs > 0 && ms - expectedMs > this.#leaseMs) this.#patientUntil = performance.now() + this.#leaseMs
    this.#shown = { ms, at: performance.now() }
  }
}
