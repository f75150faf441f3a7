/** Names that nobody needs any longer, kept for a while in case they are wanted again. One timer serves them all. */
export class Linger {
  readonly #ms: number
  readonly #onDue: (names: readonly string[]) => void
  /** When each name is due (`performance.now()`), the earliest first. */
  readonly #dueAt = new Map<string, number>()
  #timer: NodeJS.Timeout | undefined

  /** `onDue` gets the names whose time is over. */
  constructor (ms: number, onDue: (names: readonly string[]) => void) {
    this.#ms = ms
    this.#onDue = onDue
  }

  get size (): number {
    return this.#dueAt.size
  }

  add (name: string): void {
    // Deleted first, so that the names stay in the order they are due.
    this.#dueAt.delete(name)
    this.#dueAt.set(name, performance.now() + this.#ms)
    this.#arm(this.#ms)
  }

  /** The name is wanted again, or gone already. */
  delete (name: string): void {
    this.#dueAt.delete(name)
  }

  close (): void {
    clearTimeout(this.#timer)
    this.#dueAt.clear()
  }

  #arm (delayMs: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#end()
    }, delayMs).unref()
  }

  #end (): void {
    const now = performance.now()
    const due: string[] = []
    for (const [name, dueAt] of this.#dueAt) {
      if (dueAt > now) {
        this.#arm(dueAt - now)
        break
      }
      this.#dueAt.delete(name)
      due.push(name)
    }
    this.#onDue(due)
  }
}
