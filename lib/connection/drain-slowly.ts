import { setTimeout as sleep } from 'node:timers/promises'
import { CloseCode } from '../protocol/close-codes.ts'
import type { LocalConnection } from './connection.ts'
import { drainConnections } from './drain.ts'

/** How far apart batches are closed (milliseconds): farther where there are fewer connections than steps. */
const stepMs = 100

interface SlowDrain {
  /** How long the drain takes (milliseconds). */
  readonly overMs: number
  /** How long each client may take to answer its close (milliseconds). */
  readonly graceMs: number
  /** Ends the drain early; the connections that are left are closed by the shutdown. */
  readonly signal: AbortSignal
}

/**
 * Closes the connections of an instance with 1012, in random order and spread evenly over `overMs`: their clients move to the other
 * instances one after another, the last of them before the time is over. Resolves when the last connection is closed; connections whose
 * clients do not answer are terminated within `overMs`.
 */
export async function drainSlowly (connections: Iterable<LocalConnection>, { overMs, graceMs, signal }: SlowDrain): Promise<void> {
  const waiting = shuffled(connections)
  const startedAt = performance.now()
  // The clients that are closed last need the grace to answer, and as long again to be back elsewhere within the window.
  const spreadMs = Math.max(overMs - 2 * graceMs, overMs / 2)
  // A window of 0 ms has one step, too: all connections are closed at once.
  const steps = Math.min(waiting.length, Math.max(1, Math.ceil(spreadMs / stepMs)))
  const closing: Array<Promise<void>> = []
  for (let step = 0; step < steps; step++) {
    // Close at a random time within the step, so that instances that are drained together do not close connections at the same instants.
    const dueAt = startedAt + (step + Math.random()) * spreadMs / steps
    if (!await slept(dueAt - performance.now(), signal)) break
    const batch = waiting.slice(Math.floor(step * waiting.length / steps), Math.floor((step + 1) * waiting.length / steps))
    const leftMs = Math.max(0, startedAt + overMs - performance.now())
    const open = batch.filter(({ closed }) => !closed)
    // The window spreads the clients already: the hint has to spread only those of one step.
    closing.push(drainConnections(open, CloseCode.ServiceRestart, Math.min(graceMs, leftMs), Math.min(stepMs, spreadMs / steps)))
  }
  await Promise.all(closing)
}

/** Resolves after the wait, with `false` when the signal came first. */
async function slept (ms: number, signal: AbortSignal): Promise<boolean> {
  await sleep(Math.max(0, ms), undefined, { signal }).catch(() => undefined)
  return !signal.aborted
}

function shuffled<Item> (items: Iterable<Item>): Item[] {
  return Array.from(items, item => ({ item, at: Math.random() })).sort((a, b) => a.at - b.at).map(({ item }) => item)
}
