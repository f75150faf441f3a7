import { Histogram } from './histogram.ts'

const everyMs = 100

/** Measures how late the event loop is, by a timer that is due ten times a second. */
export class LoopLag {
  readonly histogram = new Histogram()
  #timer: NodeJS.Timeout | undefined
  #dueAt = 0

  start (): void {
    if (this.#timer !== undefined) return
    this.#dueAt = performance.now() + everyMs
    this.#timer = setInterval(() => {
      const now = performance.now()
      // Timers are late by up to a millisecond even in an idle process.
      this.histogram.observe(Math.max(0, now - this.#dueAt - 1) / 1_000)
      this.#dueAt = now + everyMs
    }, everyMs).unref()
  }

  stop (): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}
