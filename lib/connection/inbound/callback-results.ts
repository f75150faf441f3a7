/** Whether a callback returned a promise; that of some libraries is a function. */
export function isThenable (value: unknown): value is PromiseLike<unknown> {
  return ((typeof value === 'object' && value !== null) || typeof value === 'function') && 'then' in value
}
