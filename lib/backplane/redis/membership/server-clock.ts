/**
 * The clock of Redis by which leases end, as far as beats showed it. The clock may be set, and a failover leads to another one: when it
 * goes ahead, all leases look as if they were over; when it goes back, leases of the dead last until it is where it was.
 */
export class ServerClock {
  readonly #leaseMs: number
  /** What the clock showed last, and when that was by the clock of this process. */
  #shown: { readonly ms: number, readonly at: number } | undefined
  #patientUntil = -Infinity

  constructor (leaseMs: number) {
    this.#leaseMs = leaseMs
  }

  /** What the clock shows now unless it was set (milliseconds since 1970); 0 before it showed anything. */
  get expectedMs (): number {
    return this.#shown === undefined ? 0 : Math.round(this.#shown.ms + performance.now() - this.#shown.at)
  }

  /** Whether leases may be over only because the clock was set, or Redis was away: not all living instances have renewed theirs since. */
  get settling (): boolean {
    return performance.now() < this.#patientUntil
  }

  /** Redis could not be asked for so long that leases of the living may be over. */
  wasAway (): void {
    this.#patientUntil = performance.now() + this.#leaseMs
  }

  /** The clock showed `ms` where `expectedMs` was expected. */
  shows (ms: number, expectedMs: number): void {
    if (expectedMs > 0 && ms - expectedMs > this.#leaseMs) this.#patientUntil = performance.now() + this.#leaseMs
    this.#shown = { ms, at: performance.now() }
  }
}
