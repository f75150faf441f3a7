import { setTimeout as sleep } from 'node:timers/promises'
import { closeReasons, type CloseCode } from './close-codes.ts'
import type { LocalConnection } from './connection.ts'

const batchSize = 256
const maxBatchPauseMs = 20
/** Clients that come back at once would all be served by the instances that stay: they are spread over this long each. */
const msPerClient = 2
const minSpreadMs = 500
const maxSpreadMs = 30_000

/**
 * Closes all connections of an instance: with a close code, in batches, so that their clients do not all come back in one
 * instant; those that do not answer within `graceMs` are terminated. Resolves when every `onDisconnect` is done, after two graces at most.
 */
export async function closeAll (connections: readonly LocalConnection[], code: CloseCode, graceMs: number): Promise<void> {
  const spreadMs = Math.min(Math.max(connections.length * msPerClient, minSpreadMs), maxSpreadMs)
  const finished = Promise.allSettled(connections.map(async connection => await connection.finished))
  for (let start = 0; start < connections.length; start += batchSize) {
    if (start > 0) await sleep(Math.random() * maxBatchPauseMs)
    for (const connection of connections.slice(start, start + batchSize)) {
      connection.announceReconnect(Math.round(Math.random() * spreadMs))
      connection.close(code, closeReasons[code])
    }
  }
  if (await settlesWithin(finished, graceMs)) return
  // ws itself would wait 30 s for a client that never answers the close frame.
  for (const connection of connections) connection.forceClosed(code, closeReasons[code])
  await settlesWithin(finished, graceMs)
}

async function settlesWithin (promise: Promise<unknown>, ms: number): Promise<boolean> {
  const timer = new AbortController()
  try {
    return await Promise.race([
      promise.then(() => true),
      sleep(ms, false, { signal: timer.signal })
    ])
  } finally {
    timer.abort()
  }
}
