// What a page tells about the network and about its own sleep. In workers and in Node some or all of these events are missing.

interface Target {
  addEventListener (name: string, listener: (event: unknown) => void): void
  removeEventListener (name: string, listener: (event: unknown) => void): void
}
interface Page extends Partial<Target> {
  readonly navigator?: { readonly onLine?: boolean }
  readonly document?: Target & { readonly visibilityState: string }
}
const page = globalThis as unknown as Page

interface Watcher {
  /** The network is back; or the page is, which was hidden, frozen or in the back/forward cache. */
  readonly wake: () => void
  /** The browser lost the network, as far as it knows. */
  readonly offline: () => void
  /** The page was hidden and may never come back; `gone` when a navigation leaves it. */
  readonly hide: (gone: boolean) => void
}

/** Returns `false` only when the browser is sure that there is no network. */
export function online (): boolean {
  return page.navigator?.onLine !== false
}

/** Returns a function that stops watching. */
export function watch ({ wake, offline, hide }: Watcher): () => void {
  const listeners: Array<[Partial<Target> | undefined, string, () => void]> = [
    [page, 'online', wake],
    [page, 'offline', offline],
    [page, 'pageshow', wake],
    [page, 'pagehide', () => hide(true)],
    // Chromium freezes tabs, and thaws them without making them visible.
    [page.document, 'resume', wake],
    [page.document, 'visibilitychange', () => page.document?.visibilityState === 'hidden' ? hide(false) : wake()]
  ]
  for (const [target, name, listener] of listeners) target?.addEventListener?.(name, listener)
  return () => { for (const [target, name, listener] of listeners) target?.removeEventListener?.(name, listener) }
}
