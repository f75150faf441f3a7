import { hasCode, WebsocketGroupsError } from '../../errors.ts'
import type { Appended, AppendTarget, Envelope, Target } from '../backplane.ts'

/** Sends to all of some targets, or to none of them. */
interface PartWriter {
  publish (targets: readonly Target[], envelope: Envelope): Promise<number>
  append (targets: readonly AppendTarget[], envelope: Envelope, key?: string): Promise<Appended>
}

/** Some targets of a call that no single script can serve. */
export interface Part<One> {
  readonly writer: PartWriter
  readonly targets: readonly One[]
}

/**
 * As `Backplane.publish`, in parts that go side by side and in no order.
 * @throws {WebsocketGroupsError} WSG_TIMEOUT when some parts were sent and others were not, and what the writers throw
 */
export async function publishParts (parts: ReadonlyArray<Part<Target>>, envelope: Envelope): Promise<number> {
  const taken = await settle(parts, async ({ writer, targets }) => await writer.publish(targets, envelope), ({ name }) => name)
  return Math.max(0, ...taken)
}

/** As `publishParts`, of `Backplane.append`. At least one of the groups keeps a log. */
export async function appendParts (parts: ReadonlyArray<Part<AppendTarget>>, envelope: Envelope, key?: string): Promise<Appended> {
  const logged = parts.filter(({ targets }) => targets.some(isLogged))
  const appended = await settle(logged, async ({ writer, targets }) => await writer.append(targets, envelope, key), nameOf)
  const duplicate = appended.every(one => one.duplicate)
  // The parts in which no group keeps a log. If all logs had the message already, these groups got it, too.
  const others = duplicate ? [] : parts.filter(({ targets }) => !targets.some(isLogged))
  const sent = logged.flatMap(({ targets }) => targets.map(nameOf))
  await settle(others, async ({ writer, targets }) => {
    await writer.publish(targets.map(({ group }) => ({ kind: 'group', name: group })), envelope)
  }, nameOf, sent)
  return {
    positions: new Map(appended.flatMap(({ positions }) => [...positions])),
    queued: appended.some(({ queued }) => queued),
    duplicate,
    logLengths: appended.flatMap(({ logLengths = [] }) => logLengths)
  }
}

function isLogged ({ log }: AppendTarget): boolean {
  return log !== undefined
}

function nameOf ({ group }: AppendTarget): string {
  return group
}

/**
 * Resolves when all parts are sent. If only some failed, or `sent` names groups that were sent to before, the error says that the message
 * was sent to some of the groups, and names these.
 */
async function settle<One, Value> (
  parts: ReadonlyArray<Part<One>>, send: (part: Part<One>) => Promise<Value>, nameOf: (target: One) => string, sent: readonly string[] = []
): Promise<Value[]> {
  const results = await Promise.allSettled(parts.map(send))
  const failures = results.filter(result => result.status === 'rejected').map(({ reason }) => reason as Error)
  const failure = failures.find(error => hasCode(error, 'WSG_TIMEOUT')) ?? failures[0]
  if (failure === undefined) return results.filter(result => result.status === 'fulfilled').map(({ value }) => value)
  if (failures.length === results.length && sent.length === 0) throw failure
  const fulfilled = parts.filter((_part, index) => results[index]?.status === 'fulfilled')
  const sentTo = [...sent, ...fulfilled.flatMap(({ targets }) => targets.map(nameOf))]
  throw new WebsocketGroupsError('WSG_TIMEOUT', `sent to some of the groups only: ${failure.message}`, { cause: failure, sentTo })
}
