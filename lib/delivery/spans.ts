import type { Target } from '../backplane/backplane.ts'
import type { Data, SpanFacts, Tracing } from '../types.ts'
import { labelOf, userOfLog } from '../backplane/user-log.ts'

/** Sends a message, in a span when the application traces. The span has no user ids. */
export async function inSendSpan<Result> (
  tracing: Tracing | undefined, targets: readonly Target[], data: Data, send: () => Promise<Result>
): Promise<Result> {
  if (tracing === undefined) return await send()
  return await tracing.run({ name: 'send', ...addressOf(targets), bytes: sizeOf(data) }, send)
}

/** Reads what was missed of the log of a group, or of a user, in a span. */
export async function inRepairSpan<Result> (tracing: Tracing, log: string, read: () => Promise<Result>): Promise<Result> {
  return await tracing.run({ name: 'repair', group: labelOf(log) }, read)
}

/** What a trace says about a message that connections of this instance got. */
export function deliverySpan (target: Target, bytes: number, recipients: number): SpanFacts {
  return { name: 'deliver', ...addressOf([target]), bytes, recipients }
}

/** `undefined` for data that cannot be sent: sending it throws, and the span records that. */
function sizeOf (data: unknown): number | undefined {
  if (typeof data === 'string') return Buffer.byteLength(data)
  return ArrayBuffer.isView(data) ? data.byteLength : undefined
}

function addressOf (targets: readonly Target[]): Pick<SpanFacts, 'to' | 'group'> {
  const [first] = targets
  // The log of a user counts as the user: its name would show the user id.
  if (first?.kind === 'group' && userOfLog(first.name) !== undefined) return { to: 'user' }
  const group = targets.length === 1 && first?.kind === 'group' ? first.name : undefined
  return { to: first?.kind, ...(group === undefined ? {} : { group }) }
}
