interface Locks {
  request (name: string, options: { readonly ifAvailable: true }, held: (lock: unknown) => unknown): Promise<unknown>
}

/**
 * Says which page uses a session. The copy of a tab has the storage of the tab it was copied from, and would pass for it. Where there are
 * no Web Locks (outside of browsers, and in pages without https) nobody can tell: the server copes.
 */
export class TabLock {
  #release: (() => void) | undefined
  /** The session that was taken last. */
  #taken: string | undefined

  /** Resolves with whether no other page uses the session. From then on this one does. */
  async take (session: string): Promise<boolean> {
    const { locks } = (globalThis as { navigator?: { locks?: Locks } }).navigator ?? {}
    if (!locks || this.#taken === session) return true
    this.release()
    this.#taken = session
    return await new Promise(resolve => {
      locks.request(`wsg:${session}`, { ifAvailable: true }, lock => {
        resolve(!!lock)
        // The session may have been released before the browser answered.
        return lock && this.#taken === session && new Promise<void>(resolve => { this.#release = resolve })
      }).catch(() => resolve(true))
    })
  }

  release (): void {
    this.#release?.()
    this.#release = this.#taken = undefined
  }
}
