/** Whether a callback returned a promise. */
export function isThenable (value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value
}

/** What a callback threw, as an error. */
export function toError (thrown: unknown): Error {
  if (thrown instanceof Error) return thrown
  return new Error(`a callback threw a non-Error value: ${typeof thrown === 'string' ? thrown : typeof thrown}`, { cause: thrown })
}
