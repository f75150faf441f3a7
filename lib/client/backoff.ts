/** Longer ones fire at once (a 32-bit overflow in every JavaScript engine). */
export const maxTimerMs = 2_147_483_647

/** The largest bound is what keeps a server that is out for long from being dialled by all its clients at once. */
export const defaultBackoff = { minMs: 1_000, maxMs: 10_000 }

/**
 * Not 2: a wait that is drawn just before a short outage ends would hold a client back for longer than the outage was. With 1.5 a client
 * that was cut for 2 s is back after 2.8 s (99 %: 5.9 s), with 2 after 3.2 s (9.1 s); what an outage of a minute sees of it is the same.
 */
const growth = 1.5

/**
 * How long to wait before the next attempt: exponential, with full jitter. With a part of the wait alone at random, the clients of an
 * instance that died would come back as one herd.
 */
export function backoffMs (failures: number, { minMs, maxMs }: typeof defaultBackoff): number {
  return Math.random() * Math.min(maxMs, minMs * growth ** failures)
}
