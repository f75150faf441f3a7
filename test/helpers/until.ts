import { setTimeout as sleep } from 'node:timers/promises'

interface UntilOptions {
  readonly timeoutMs?: number
  readonly everyMs?: number
  /** Ends the sentence "timed out waiting for …". */
  readonly what?: string
}

/** A pause that lasts longer than this many times `everyMs` was lengthened by other work on the machine. */
const latest = 3

/**
 * Resolves with the first truthy result of `predicate`. A predicate that throws is asked again; its last error becomes the cause.
 * What a pause takes too long on a busy machine does not count as waiting: what is waited for is as late as the pause.
 */
export async function until<Result> (predicate: () => Result | Promise<Result>, options: UntilOptions = {}): Promise<NonNullable<Result>> {
  const { timeoutMs = 20_000, everyMs = 10, what = predicate.toString() } = options
  let deadline = performance.now() + timeoutMs
  let last: unknown
  let cause: unknown
  for (;;) {
    try {
      // A predicate that hangs, on a stopped Redis say, must not outlive the deadline.
      const answer = await withDeadline(predicate(), deadline)
      if (answer) return answer
      last = answer
      cause = undefined
    } catch (err) {
      cause = err
    }
    const pausedAt = performance.now()
    if (pausedAt + everyMs > deadline) {
      throw new Error(
        `timed out after ${timeoutMs} ms waiting for ${what}; the last answer was ${cause ? 'an error' : JSON.stringify(last)}`, { cause }
      )
    }
    await sleep(everyMs)
    deadline += Math.max(0, performance.now() - pausedAt - latest * everyMs)
  }
}

async function withDeadline<Result> (answer: Result | Promise<Result>, deadline: number): Promise<Result> {
  const timer = new AbortController()
  const late = sleep(Math.max(deadline - performance.now(), 0), undefined, { signal: timer.signal })
    .then(() => { throw new Error('the predicate did not answer') })
  late.catch(() => {}) // aborted below
  try {
    return await Promise.race([answer, late])
  } finally {
    timer.abort()
  }
}
