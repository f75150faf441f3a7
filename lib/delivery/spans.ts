import type { Target } from '../backplane/backplane.ts'
import type { Data, SpanFacts, Tracing } from '../types.ts'
import { labelOf, userOfLog } from '../backplane/user-log.ts'

/** Sends a message in a span, where somebody traces. It tells no ids of users. */
export async function inSendSpan<Result> (
  tracing: Tracing | undefined, targets: readonly Target[], data: Data, send: () => Promise<Result>
): Promise<Result> {
  if (tracing === undefined) return await send()
  return await tracing.run({ name: 'send', ...addressOf(targets), bytes: sizeOf(data) }, send)
}

/** Reads in a span what was missed of the log of a group, or of a user. */
export async function inRepairSpan<Result> (tracing: Tracing, log: string, read: () => Promise<Result>): Promise<Result> {
  return await tracing.run({ name: 'repair', group: labelOf(log) }, read)
}

/** What a trace says of a message that connections of this instance got. */
export function deliverySpan (target: Target, bytes: number, recipients: number): SpanFacts {
  return { name: 'deliver', ...addressOf([target]), bytes, recipients }
}

/** `undefined` for what cannot be sent: whoever sends it says so, and the span only tells that it failed. */
function sizeOf (data: unknown): number | undefined {
  if (typeof data === 'string') return Buffer.byteLength(data)
  return ArrayBuffer.isView(data) ? data.byteLength : undefined
}

function addressOf (targets: readonly Target[]): Pick<SpanFacts, 'to' | 'group'> {
  const [first] = targets
  // The log of a user is one of the user, whatever it is called.
  if (first?.kind === 'group' && userOfLog(first.name) !== undefined) return { to: 'user' }
  const group = targets.length === 1 && first?.kind === 'group' ? first.name : undefined
  return { to: first?.kind, ...(group === undefined ? {} : { group }) }
}
