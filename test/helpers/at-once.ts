import type { Test } from 'tap'

/** A call that waits for nothing from outside is over after a few turns of the event loop, however long these take on a busy machine. */
const maxTurns = 20
const late = Symbol('late')

async function turnsLater (): Promise<typeof late> {
  for (let turn = 0; turn < maxTurns; turn++) await new Promise(resolve => setImmediate(resolve))
  return late
}

/**
 * Resolves with what the call resolved with, or with the code of its error. Fails the test when the call waited for an answer or a timer.
 */
export async function atOnce (t: Test, what: string, call: () => Promise<unknown>): Promise<unknown> {
  const outcome = call().catch((error: { code: string }) => error.code)
  const first = await Promise.race([outcome, turnsLater()])
  t.not(first, late, `${what} is decided at once`)
  return await outcome
}
