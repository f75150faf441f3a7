const everyMs = 10

export interface Lag { readonly p99: number, readonly max: number }

/** How late timers are, in ms. Measured by hand, so that it means the same in Node.js and in Bun. */
export class LagMeter {
  #late: number[] = []

  constructor () {
    let due = performance.now() + everyMs
    setInterval(() => {
      const now = performance.now()
      this.#late.push(Math.max(0, now - due))
      due = now + everyMs
    }, everyMs).unref()
  }

  /** Since the last call. */
  read (): Lag {
    const late = this.#late.sort((a, b) => a - b)
    this.#late = []
    const at = (share: number): number => Math.round((late[Math.min(late.length - 1, Math.floor(late.length * share))] ?? 0) * 10) / 10
    return { p99: at(0.99), max: at(1) }
  }
}
