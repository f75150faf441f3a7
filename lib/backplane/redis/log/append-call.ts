import type { AppendTarget, LogLimits, LogPosition } from '../../backplane.ts'
import { encodePlaceNames, encodeTarget, type EnvelopeParts } from '../envelope.ts'
import type { Keys } from '../keys.ts'
import { randomBytesOf } from './random.ts'
import { packSettings, unpackSettings, type Difference } from './settings.ts'

/** How long an idempotency key is remembered. */
const idempotencyMs = 300_000
/** To more groups than this a message does not carry its places: they would weigh more than most messages. */
const maxPlaces = 64

/** A message as the script `append` takes it. */
export interface Draft extends EnvelopeParts {
  readonly nonce: Buffer
}

export interface AppendBatch {
  readonly targets: readonly AppendTarget[]
  readonly publisher: string
  /** Of the last message. */
  readonly sequence: number
  readonly key: string | undefined
  /** More than one only without `key`. */
  readonly messages: readonly Draft[]
}

/** What became of the last message of a batch in one log. */
export interface AppendedTo {
  readonly group: string
  readonly last: LogPosition
  /** It was there already, by its key. */
  readonly known: boolean
  readonly difference: Difference | undefined
}

type LoggedTarget = AppendTarget & { readonly log: LogLimits }

/** Whether copies of messages to these groups say where all the copies stand. */
export function carriesPlaces (targets: readonly AppendTarget[]): boolean {
  const { length } = targets.filter(isLogged)
  return length > 1 && length <= maxPlaces
}

/** Keys and arguments for the script `append`. */
export function encodeAppend (keys: Keys, batch: AppendBatch): { readonly keys: string[], readonly args: Array<string | number | Buffer> } {
  const { targets, publisher, sequence, key, messages } = batch
  const logs = targets.filter(isLogged)
  const others = targets.filter(target => !isLogged(target))
  const args: Array<string | number | Buffer> = [
    logs.length, others.length, publisher, sequence, key === undefined ? 0 : idempotencyMs,
    carriesPlaces(targets) ? encodePlaceNames(logs.map(({ group }) => group)) : ''
  ]
  for (const { group, log } of logs) args.push(...nameOf(keys, group), packSettings(log), randomBytesOf(8))
  for (const { group } of others) args.push(...nameOf(keys, group))
  for (const { nonce, prefix, rest } of messages) args.push(nonce, prefix, rest)
  return {
    keys: logs.flatMap(({ group }) => [keys.logMeta(group), keys.log(group), ...(key === undefined ? [] : [keys.idempotency(group, key)])]),
    args
  }
}

/** What the script `append` returned. */
export function decodeAppended (reply: unknown, targets: readonly AppendTarget[]): AppendedTo[] {
  const fields = reply as Array<Buffer | number>
  return targets.filter(isLogged).map(({ group }, index) => {
    const [epoch, offset, nonce, known, differ] = fields.slice(5 * index) as [Buffer, number, Buffer, number, Buffer]
    return {
      group,
      last: { epoch: epoch.toString('latin1'), offset, nonce: nonce.readUInt32BE() },
      known: known === 1,
      difference: unpackSettings(differ)
    }
  })
}

function nameOf (keys: Keys, group: string): [channel: string, target: Buffer] {
  const target = { kind: 'group', name: group } as const
  return [keys.channel(target), encodeTarget(target)]
}

function isLogged (target: AppendTarget): target is LoggedTarget {
  return target.log !== undefined
}
