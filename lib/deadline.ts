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
export async function withDeadline<Value, Late> (promise: PromiseLike<Value>, ms: number, onLate: () => Late): Promise<Value | Late> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<Late>((resolve, reject) => {
    timer = setTimeout(() => {
      try {
        resolve(onLate())
      } catch (error) {
        reject(error)
      }
    }, ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
