/** What one reader got of a series 1, 2, 3, …, each number meant to arrive once and in order. */
export class Ledger {
  doubled = 0
  outOfOrder = 0
  /** Between two messages in a row. */
  longestPauseMs = 0
  readonly #seen = new Set<number>()
  #latest = 0
  #at = 0

  record (n: number): void {
    const now = performance.now()
    if (this.#at > 0) this.longestPauseMs = Math.max(this.longestPauseMs, now - this.#at)
    this.#at = now
    if (this.#seen.has(n)) this.doubled++
    else if (n < this.#latest) this.outOfOrder++
    this.#seen.add(n)
    this.#latest = Math.max(this.#latest, n)
  }

  /** Different ones. */
  get delivered (): number {
    return this.#seen.size
  }

  missing (sent: number): number[] {
    return Array.from({ length: sent }, (_, i) => i + 1).filter(n => !this.#seen.has(n))
  }
}
