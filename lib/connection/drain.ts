import { setImmediate, setTimeout as sleep } from 'node:timers/promises'
import type { CloseCode } from '../protocol/close-codes.ts'
import { closeReasons } from './close.ts'
import type { LocalConnection } from './connection.ts'

const batchSize = 256
const maxBatchPauseMs = 20
/** Clients that come back at once would all be served by the instances that stay: they are spread over this long each. */
const msPerClient = 2
const minSpreadMs = 500
const maxSpreadMs = 30_000
/** How much of the grace the callbacks of framed clients may take; the rest is for the answer to the close. */
const answerShare = 0.75

/**
 * Closes all connections of an instance: with a close code, in batches, so that their clients do not all come back in one instant. Framed clients are first
 * told when to come back, upon which they send no more, and get the answers that they wait for. Those that do not answer the close within `graceMs` of the
 * whole are terminated. Resolves when every `onDisconnect` is done, after two graces and the pauses between batches at most.
 */
export async function drainConnections (connections: readonly LocalConnection[], code: CloseCode, graceMs: number): Promise<void> {
  const spreadMs = Math.min(Math.max(connections.length * msPerClient, minSpreadMs), maxSpreadMs)
  const finished = Promise.allSettled(connections.map(async connection => await connection.finished))
  const framed = connections.filter(connection => connection.framed)
  const end = (connection: LocalConnection): void => connection.close(code, closeReasons[code])
  const inform = (connection: LocalConnection): void => connection.announceShutdown(Math.round(Math.random() * spreadMs))
  const started = performance.now()
  await Promise.all([
    inBatches(connections.filter(connection => !connection.framed), end, pauseABit),
    inBatches(framed, inform, async () => await setImmediate()).then(async () => await endAnswered(framed, end, started + graceMs * answerShare))
  ])
  const waitedMs = framed.length > 0 ? performance.now() - started : 0
  if (await settlesWithin(finished, Math.max(graceMs - waitedMs, graceMs * (1 - answerShare)))) return
  // ws itself would wait 30 s for a client that never answers the close frame.
  for (const connection of connections) connection.forceClosed(code, closeReasons[code])
  await settlesWithin(finished, graceMs)
}

/** Ends each as soon as all that its client sent is answered, and the rest at the deadline. */
async function endAnswered (framed: readonly LocalConnection[], end: (connection: LocalConnection) => void, deadline: number): Promise<void> {
  const waiting = new Set(framed)
  while (waiting.size > 0 && performance.now() < deadline) {
    let room = batchSize
    for (const connection of waiting) {
      if (connection.pending || !(connection.shutdownAcked || connection.closed)) continue
      waiting.delete(connection)
      end(connection)
      if (--room === 0) break
    }
    if (waiting.size > 0) await sleep(Math.random() * maxBatchPauseMs)
  }
  await inBatches([...waiting], end, pauseABit)
}

async function inBatches (connections: readonly LocalConnection[], act: (connection: LocalConnection) => void, pause: () => Promise<unknown>): Promise<void> {
  for (let start = 0; start < connections.length; start += batchSize) {
    if (start > 0) await pause()
    connections.slice(start, start + batchSize).forEach(act)
  }
}

async function pauseABit (): Promise<void> {
  await sleep(Math.random() * maxBatchPauseMs)
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
