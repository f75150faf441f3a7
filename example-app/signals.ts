const signals = ['SIGTERM', 'SIGINT'] as const
/** Longer than the plugin's grace for clients, shorter than what container platforms wait before they kill (10 s and up). */
const deadlineMs = 8_000
/** npm and tsx pass on a signal that the terminal has sent already: a second one within this time is the same Ctrl-C. */
const echoMs = 300

/** The first signal closes cleanly, and the process ends because nothing is left to do. A second signal ends the process at once. */
export function closeOnSignal (close: () => Promise<void>): void {
  let firstAt: number | undefined
  for (const signal of signals) {
    process.on(signal, () => {
      if (firstAt !== undefined) {
        if (performance.now() - firstAt > echoMs) process.exit(1)
        return
      }
      firstAt = performance.now()
      setTimeout(() => {
        console.error(`Not closed within ${deadlineMs} ms, giving up.`)
        process.exit(1)
      }, deadlineMs).unref()
      close().catch((error: unknown) => {
        console.error(error)
        process.exitCode = 1
      })
    })
  }
}
