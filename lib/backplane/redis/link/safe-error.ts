import type { RedisOptions } from 'ioredis'

const copied = ['code', 'errno', 'syscall', 'address', 'port', 'hostname'] as const

/** Copies errors without the data that was sent to Redis, and without passwords. */
export class ErrorCleaner {
  readonly #secrets: readonly string[]

  constructor ({ password, sentinelPassword }: RedisOptions) {
    const given = [password, sentinelPassword].filter(secret => typeof secret === 'string' && secret !== '') as string[]
    this.#secrets = [...new Set(given.flatMap(secret => [secret, encodeURIComponent(secret)]))]
  }

  /**
   * Returns a copy with message, stack and a few well-known fields. The rest is dropped: ioredis attaches the command with its arguments
   * to an error, the password among them, and a server that does not know a command repeats its arguments.
   */
  clean (error: Error): Error {
    const [first] = error instanceof AggregateError ? error.errors as Error[] : []
    const clean = new Error(this.#scrub(error.message === '' && first !== undefined ? first.message : error.message))
    clean.name = error.name
    clean.stack = this.#scrub(error.stack ?? `${clean.name}: ${clean.message}`)
    const source = error as unknown as Record<string, unknown>
    for (const name of copied) {
      const value = source[name]
      if (typeof value === 'string' || typeof value === 'number') Object.assign(clean, { [name]: value })
    }
    return clean
  }

  #scrub (text: string): string {
    const cut = text.replace(/, with args beginning with:.*/g, '')
    return this.#secrets.reduce((text, secret) => text.replaceAll(secret, '***'), cut)
  }
}
