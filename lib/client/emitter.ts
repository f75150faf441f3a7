type Handler<Event> = (event: Event) => void

/** Typed events. A handler that throws is reported; it stops neither the client nor the other handlers. */
export class Emitter<Events extends object> {
  readonly #listeners = new Set<() => void>()
  readonly #handlers = new Map<keyof Events, Set<Handler<never>>>()

  /** Returns a function that removes the handler again. */
  on<Name extends keyof Events> (name: Name, handler: Handler<Events[Name]>): () => void {
    const handlers = this.#handlers.get(name) ?? new Set()
    this.#handlers.set(name, handlers.add(handler))
    return () => { handlers.delete(handler) }
  }

  /** Calls the listener after each event, as the state may have changed. Returns a function that removes the listener again. */
  subscribe (listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  /** Returns whether anybody listens. Calls `failed` with what a handler throws. */
  dispatch<Name extends keyof Events> (name: Name, event: Events[Name], failed: (error: unknown) => void): boolean {
    // A copy: a handler may remove itself, or add another one that must not run for this event.
    const handlers = [...this.#handlers.get(name) ?? []] as Array<Handler<Events[Name]>>
    for (const handler of [...handlers, ...this.#listeners] as typeof handlers) {
      try {
        handler(event)
      } catch (error) {
        failed(error)
      }
    }
    return handlers.length > 0
  }
}
