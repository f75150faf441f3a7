/** A promise and the functions that settle it. */
export interface Deferred<Value> {
  readonly promise: Promise<Value>
  resolve (value: Value): void
  reject (error: Error): void
}

const ignore = (): void => undefined

/** A promise that somebody else settles. Its rejection never counts as unhandled, even if nobody waits for it. */
export function deferred<Value = void> (): Deferred<Value> {
  // The executor of a promise runs before its constructor returns.
  let resolve: Deferred<Value>['resolve'] = ignore
  let reject: Deferred<Value>['reject'] = ignore
  const promise = new Promise<Value>((...functions) => { [resolve, reject] = functions })
  promise.catch(ignore)
  return { promise, resolve, reject }
}

/**
 * Settles as `promise` does, or with what `onLate` returns or throws when `promise` takes longer than `ms` milliseconds. What `promise`
 * does after that is ignored, a rejection too. The timer keeps the process alive, so that the waiting caller gets an answer.
 */
export function withDeadline<Value, Late> (promise: PromiseLike<Value>, ms: number, onLate: () => Late): Promise<Value | Late> {
  // Every join has such a deadline. `Promise.race` would make six promises for each.
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => settleLate(onLate, resolve, reject), ms)
    settleInTime(promise, () => clearTimeout(timer), resolve, reject)
  })
}

/** Returns `withDeadline` for calls that one after the other share so many milliseconds. Each gets a moment at least. */
export function sharedDeadline (ms: number): <Value, Late>(promise: PromiseLike<Value>, onLate: () => Late) => Promise<Value | Late> {
  const endsAt = performance.now() + ms
  return async (promise, onLate) => await withDeadline(promise, Math.max(leastMs, endsAt - performance.now()), onLate)
}

/** Deadlines for the checks of one service. All have the same length; after the end of the service none keeps the process alive. */
export class CheckDeadlines {
  /** Milliseconds. */
  readonly ms: number
  readonly #timers = new Set<NodeJS.Timeout>()
  #over = false

  constructor (ms: number) {
    this.ms = ms
  }

  /** As `withDeadline`. */
  within<Value, Late> (promise: PromiseLike<Value>, onLate: () => Late): Promise<Value | Late> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#timers.delete(timer)
        settleLate(onLate, resolve, reject)
      }, this.ms)
      if (this.#over) timer.unref()
      else this.#timers.add(timer)
      settleInTime(promise, () => {
        this.#timers.delete(timer)
        clearTimeout(timer)
      }, resolve, reject)
    })
  }

  /** The service ended: checks that still run no longer keep the process alive. */
  end (): void {
    this.#over = true
    for (const timer of this.#timers) timer.unref()
    this.#timers.clear()
  }
}

/** The shortest first grace (milliseconds): long enough to read what has arrived. */
const leastMs = 10
/** A process whose timer is late by more than this after a grace (milliseconds) is still busy. */
const busyMs = 100
const maxGraces = 10

/**
 * Time to add to a deadline that passed. Timers run before sockets are read, so an overdue answer may be here, unread: every deadline gets
 * one grace, in a busy process as long as the timer was late, and further graces while the process stays busy.
 */
export class BusyGrace {
  #left = maxGraces

  /**
   * Returns how many milliseconds longer to wait after a timer that fired `lateMs` late: 0 if it fired on time again, or after too many
   * graces.
   */
  after (lateMs: number): number {
    const isFirst = this.#left === maxGraces
    if (this.#left === 0 || (!isFirst && lateMs <= busyMs)) return 0
    this.#left--
    return isFirst ? Math.max(lateMs, leastMs) : lateMs
  }
}

/**
 * As `withDeadline`, for work that waits in a queue: waiting behind others does not count against the deadline, so the time starts anew
 * with each progress of the queue. `progressedAt` tells when the latest progress was, by `performance.now()`. No grace is longer than `ms`.
 */
export function withProgress<Value> (
  promise: PromiseLike<Value>, ms: number, progressedAt: () => number, onLate: () => never
): Promise<Value> {
  return new Promise((resolve, reject) => {
    let since = performance.now()
    let dueAt = since + ms
    let grace: BusyGrace | undefined
    const look = (): void => {
      const now = performance.now()
      const latest = progressedAt()
      if (latest > since) {
        since = latest
        grace = undefined
      }
      const leftMs = since + ms - now
      const waitMs = leftMs > 0 ? Math.ceil(leftMs) : Math.min((grace ??= new BusyGrace()).after(now - dueAt), ms)
      dueAt = now + waitMs
      if (waitMs > 0) timer = setTimeout(look, waitMs)
      else settleLate(onLate, resolve, reject)
    }
    let timer = setTimeout(look, ms)
    settleInTime(promise, () => clearTimeout(timer), resolve, reject)
  })
}

function settleInTime<Value> (
  promise: PromiseLike<Value>, cancelTimer: () => void, resolve: (value: Value) => void, reject: (error: unknown) => void
): void {
  promise.then(value => {
    cancelTimer()
    resolve(value)
  }, (error: unknown) => {
    cancelTimer()
    reject(error)
  })
}

function settleLate<Outcome> (onLate: () => Outcome, resolve: (outcome: Outcome) => void, reject: (error: unknown) => void): void {
  try {
    resolve(onLate())
  } catch (error) {
    reject(error)
  }
}
