import type { Test } from 'tap'

/**
 * Fails `t` at its end when this process saw an unhandled rejection or an uncaught exception meanwhile.
 * tap alone catches those that it can trace to a test; one from a Redis reply or a timer of ours is not always among them.
 */
export function noUnhandled (t: Test): { readonly errors: readonly unknown[] } {
  const errors: unknown[] = []
  const record = (err: unknown): void => { errors.push(err) }
  process.on('unhandledRejection', record)
  process.on('uncaughtException', record)
  t.teardown(async () => {
    // An unhandled rejection is reported only after the microtasks of its turn.
    await new Promise(resolve => setImmediate(resolve))
    process.off('unhandledRejection', record)
    process.off('uncaughtException', record)
    if (errors.length > 0) throw new AggregateError(errors, `${errors.length} unhandled: ${errors.map(String).join('; ')}`)
  })
  return { errors }
}
