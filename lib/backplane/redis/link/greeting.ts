import type { Redis } from 'ioredis'
import { isPassing } from './reply-errors.ts'

/** A server that is not ready is asked again after this many milliseconds. */
const againMs = 250

interface GreetingEvents {
  /** The server takes commands, and the database is the right one. */
  readonly ready: () => void
  /** The server is not ready yet, and why. */
  readonly refused: (error: Error) => void
  /** Whether the connection is still the present one. */
  readonly stands: () => boolean
}

/**
 * The first commands on a new connection. ioredis asks INFO, which many operators forbid, and goes on in database 0 when the server
 * refuses the one that was asked for. Never rejects.
 */
export async function greet (redis: Redis, db: number, { ready, refused, stands }: GreetingEvents): Promise<void> {
  while (stands()) {
    const refusal = await firstCommands(redis, db)
    if (!stands()) return
    if (refusal === undefined) return ready()
    refused(refusal)
    await new Promise<void>(resolve => { setTimeout(resolve, againMs).unref() })
  }
}

async function firstCommands (redis: Redis, db: number): Promise<Error | undefined> {
  try {
    if (db !== 0) await redis.select(db)
  } catch (error) {
    (error as Error).message = `database ${db} cannot be used: ${(error as Error).message}`
    return error as Error
  }
  try {
    await redis.ping()
  } catch (error) {
    // Any other error shows that the server answers.
    if (isPassing(error as Error)) return error as Error
  }
  return undefined
}
