/** A promise and the functions that settle it. */
export interface Deferred<Value> {
  readonly promise: Promise<Value>
  resolve (value: Value): void
  reject (error: Error): void
}

/** A promise that somebody else settles. Nobody has to wait for it: its rejection alone never counts as unhandled. */
export function deferred<Value = void> (): Deferred<Value> {
  let settle: Pick<Deferred<Value>, 'resolve' | 'reject'> | undefined
  const promise = new Promise<Value>((resolve, reject) => { settle = { resolve, reject } })
  promise.catch(() => undefined)
  // The executor of a promise runs before its constructor returns.
  return { promise, ...(settle as Pick<Deferred<Value>, 'resolve' | 'reject'>) }
}

/**
 * Settles as `promise` does, or with what `onLate` returns or throws when `promise` takes longer than `ms` milliseconds. What `promise`
 * does after that is ignored, a rejection too. The timer keeps the process alive, so that the waiting caller gets an answer.
 */
export function withDeadline<Value, Late> (promise: PromiseLike<Value>, ms: number, onLate: () => Late): Promise<Value | Late> {
  // Every join waits with one. So not as a race, which makes six promises of it.
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      try {
        resolve(onLate())
      } catch (error) {
        reject(error)
      }
    }, ms)
    promise.then(value => {
      clearTimeout(timer)
      resolve(value)
    }, (error: unknown) => {
      clearTimeout(timer)
      reject(error)
    })
  })
}

/** A timer that is later than this tells of a process that was busy, and one that is so late after that of a process that still is. */
const lateMs = { first: 10, next: 100 } as const
const maxGraces = 10

/**
 * As `withDeadline`, for something that waits in a queue: the deadline is for whoever does the work and not for those who wait before, so
 * the time counts from the latest progress. `progressedAt` tells when that was, by `performance.now()`. A process that was busy gets as
 * long again, up to `ms`, to notice what was done meanwhile.
 */
export async function withProgress<Value> (
  promise: PromiseLike<Value>, ms: number, progressedAt: () => number, onLate: () => never
): Promise<Value> {
  const late = Symbol('late')
  let [waitMs, least, graces]: [number, number, number] = [ms, lateMs.first, 0]
  for (let since = performance.now(); ;) {
    const dueAt = performance.now() + waitMs
    const outcome = await withDeadline(promise, waitMs, () => late)
    if (outcome !== late) return outcome as Value
    const now = performance.now()
    const busyMs = now - dueAt
    const latest = progressedAt()
    if (latest > since) [since, least, graces] = [latest, lateMs.first, 0]
    const leftMs = since + ms - now
    if (leftMs > 0) {
      waitMs = Math.ceil(leftMs)
    } else if (busyMs > least && graces < maxGraces) {
      [waitMs, least, graces] = [Math.min(busyMs, ms), lateMs.next, graces + 1]
    } else {
      onLate()
    }
  }
}
