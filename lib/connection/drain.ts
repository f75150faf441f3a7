import { setImmediate, setTimeout as sleep } from 'node:timers/promises'
import type { CloseCode } from '../protocol/close-codes.ts'
import { closeReasons } from './close.ts'
import { withDeadline } from '../deadline.ts'
import type { Metrics } from '../metrics.ts'
import type { LocalConnection } from './connection.ts'

const batchSize = 256
const maxBatchPauseMs = 20
/** How much of the grace the pauses between batches may take. */
const pauseShare = 0.25
/**
 * Clients that come back at once would all reach the remaining instances together: each client adds this much to the time over which they
 * are spread.
 */
const msPerClient = 2
const minSpreadMs = 500
const maxSpreadMs = 30_000
/** How much of the grace the callbacks of framed clients may take; the rest is for the answer to the close. */
const answerShare = 0.75
/** How long the `onDisconnect` callbacks of terminated connections may take beyond the grace. */
const lastCallbackMs = 400
/** How long the callbacks of a connection that is gone are waited for (milliseconds). */
const maxDepartureMs = 60_000

type Act = (connection: LocalConnection) => void

/**
 * The connections that left their groups and whose `onDisconnect` is not done. A connection whose callbacks take longer than a minute may
 * wait for ever: when others leave after it, the connection is counted and given up, so that no shutdown waits for it and nothing here
 * keeps it in memory.
 */
export class Departures implements Iterable<LocalConnection> {
  readonly #metrics: Pick<Metrics, 'callbacksOverdue' | 'lines'>
  readonly #now: () => number
  /** When each connection left; the first one has waited the longest. */
  readonly #leftAt = new Map<LocalConnection, number>()

  constructor (metrics: Pick<Metrics, 'callbacksOverdue' | 'lines'>, now = () => performance.now()) {
    this.#metrics = metrics
    this.#now = now
  }

  add (connection: LocalConnection): void {
    const now = this.#now()
    this.#giveUp(now - maxDepartureMs)
    this.#leftAt.set(connection, now)
    void connection.finished.then(() => this.#leftAt.delete(connection))
  }

  [Symbol.iterator] (): Iterator<LocalConnection> {
    return this.#leftAt.keys()
  }

  #giveUp (leftBefore: number): void {
    for (const [connection, leftAt] of this.#leftAt) {
      if (leftAt > leftBefore) return
      this.#leftAt.delete(connection)
      this.#metrics.callbacksOverdue++
      this.#metrics.lines.write(connection.log, 'callbacks_overdue')
    }
  }
}

/**
 * Closes the connections with a close code, in batches, so that their clients do not all come back in one instant. Framed clients are
 * first told when to come back, each at a random time within `spreadMs`; then they send nothing more, and still get the answers that they
 * wait for. Connections that are not closed `graceMs` after the call are terminated. Resolves when every `onDisconnect` is done, at the
 * latest 400 ms after the grace.
 */
export async function drainConnections (
  connections: readonly LocalConnection[], code: CloseCode, graceMs: number,
  spreadMs = Math.min(Math.max(connections.length * msPerClient, minSpreadMs), maxSpreadMs)
): Promise<void> {
  const finished = Promise.allSettled(connections.map(async connection => await connection.finished))
  const framed = connections.filter(connection => connection.framed)
  const end: Act = connection => connection.close(code, closeReasons[code])
  const inform: Act = connection => connection.announceShutdown(Math.round(Math.random() * spreadMs))
  const deadline = performance.now() + graceMs
  const maxPauseMs = Math.min(maxBatchPauseMs, graceMs * pauseShare / Math.ceil(connections.length / batchSize))
  const pause = async (): Promise<void> => await sleep(Math.random() * maxPauseMs)
  await Promise.all([
    inBatches(connections.filter(connection => !connection.framed), end, pause),
    inBatches(framed, inform, async () => await setImmediate())
      .then(async () => await endAnswered(framed, end, deadline - graceMs * (1 - answerShare)))
      .then(async rest => await inBatches(rest, end, pause))
  ])
  if (await withDeadline(finished, deadline - performance.now(), () => undefined) !== undefined) return
  for (const connection of connections) connection.forceClosed(code, closeReasons[code])
  await withDeadline(finished, lastCallbackMs, () => undefined)
}

/** Ends each connection as soon as all that its client sent is answered. Resolves with those that are left at the deadline. */
async function endAnswered (framed: readonly LocalConnection[], end: Act, deadline: number): Promise<LocalConnection[]> {
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
  return [...waiting]
}

async function inBatches (connections: readonly LocalConnection[], act: Act, pause: () => Promise<unknown>): Promise<void> {
  for (let start = 0; start < connections.length; start += batchSize) {
    if (start > 0) await pause()
    connections.slice(start, start + batchSize).forEach(act)
  }
}
