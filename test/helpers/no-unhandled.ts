import type { Test } from 'tap'

/** Errors of each test that watches now. */
const watching = new Set<unknown[]>()

/** The one listener for all: with one for each, Node would warn of a leak. */
function record (err: unknown): void {
  for (const errors of watching) errors.push(err)
}

/**
 * Fails `t` at its end when this process saw an unhandled rejection or an uncaught exception meanwhile.
 * tap alone catches those that it can trace to a test; one from a Redis reply or a timer of ours is not always among them.
 */
export function noUnhandled (t: Test): { readonly errors: readonly unknown[] } {
  const errors: unknown[] = []
  if (watching.size === 0) for (const event of ['unhandledRejection', 'uncaughtException']) process.on(event, record)
  watching.add(errors)
  t.teardown(async () => {
    // An unhandled rejection is reported only after the microtasks of its turn.
    await new Promise(resolve => setImmediate(resolve))
    watching.delete(errors)
    if (watching.size === 0) for (const event of ['unhandledRejection', 'uncaughtException']) process.off(event, record)
    if (errors.length > 0) throw new AggregateError(errors, `${errors.length} unhandled: ${errors.map(String).join('; ')}`)
  })
  return { errors }
}
