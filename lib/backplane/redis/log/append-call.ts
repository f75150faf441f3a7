import type { AppendTarget, LogLimits, LogPosition, Target } from '../../backplane.ts'
import { encodePlaceNames, encodeTarget, logHeaderBytes, type EnvelopeParts, type PlaceNames } from '../envelope.ts'
import type { Keys } from '../keys.ts'
import type { Script } from '../link/script.ts'
import { unpackNonce } from './page.ts'
import { randomBytesOf } from './random.ts'
import { append, appendToOne, idempotencyMs } from './scripts.ts'
import { packSettings, unpackSettings, type Difference } from './settings.ts'

const nonceBytes = 4
/** Copies of a message to more groups than this do not carry their places in all logs, which would be larger than most messages. */
const maxPlaces = 64

/** A message in the form that the script `append` takes. */
export interface Draft extends EnvelopeParts {
  readonly targets: readonly AppendTarget[]
  /** The sequence of this publisher: it grows from message to message. */
  readonly sequence: number
  readonly nonce: Buffer
}

export interface AppendBatch {
  readonly publisher: string
  readonly key: string | undefined
  /** Oldest first; more than one only without `key`. */
  readonly messages: readonly Draft[]
}

interface AppendCall {
  readonly script: Script
  readonly keys: string[]
  readonly args: Array<string | number | Buffer>
  /** The groups whose logs the reply is about, in its order. */
  readonly groups: readonly string[]
}

/** What happened to the last message of a batch in one log. Whoever tells the callers counts `offset` and `length` down. */
export interface AppendedTo {
  readonly epoch: string
  offset: number
  /** Where the message stands that the log already had, as the idempotency key shows. */
  readonly known: LogPosition | undefined
  readonly difference: Difference | undefined
  /** How many messages the log holds now, 0 if the batch was stored before. */
  length: number
}

type LoggedTarget = AppendTarget & { readonly log: LogLimits }

/** Whether copies of a message to these groups carry the places of all copies. */
export function carriesPlaces (targets: readonly AppendTarget[]): boolean {
  if (targets.length === 1) return false
  const { length } = targets.filter(isLogged)
  return length > 0 && length <= maxPlaces
}

/** The target of a message to one group with a log; `undefined` for others. */
export function onlyTarget (targets: readonly AppendTarget[]): Target | undefined {
  const [only] = targets
  return targets.length === 1 && only !== undefined && isLogged(only) ? { kind: 'group', name: only.group } : undefined
}

/** Keys and arguments for the script `appendToOne`; `undefined` for messages that need the script `append`. */
export function encodeToOne (keys: Keys, { publisher, key, messages }: AppendBatch): AppendCall | undefined {
  const [only] = messages[0]?.targets ?? []
  const last = messages.at(-1)
  if (only?.log === undefined || last === undefined) return undefined
  const { group } = only
  const nonces = Buffer.allocUnsafe(nonceBytes * messages.length)
  const args: AppendCall['args'] = [publisher, keys.channel({ kind: 'group', name: group }), '', nonces]
  let bytes = 0
  let largest = 0
  for (const [index, { targets, nonce, whole }] of messages.entries()) {
    if (whole === undefined || targets[0]?.group !== group) return undefined
    nonce.copy(nonces, nonceBytes * index)
    args.push(whole)
    const stored = logHeaderBytes + whole.length
    bytes += stored
    largest = Math.max(largest, stored)
  }
  const about = Buffer.allocUnsafe(42)
  packSettings(only.log).copy(about)
  randomBytesOf(8).copy(about, 16)
  let at = 24
  for (const number of [last.sequence, bytes, largest]) at = about.writeUIntBE(number, at, 6)
  args[2] = about
  return { script: appendToOne, keys: keysOf(keys, group, key), args, groups: [group] }
}

/** Keys and arguments for the script `append`, and the groups whose logs its reply is about. */
export function encodeAppend (keys: Keys, { publisher, key, messages }: AppendBatch): AppendCall {
  const [first] = messages
  const uniform = messages.every(({ targets }) => sameGroups(targets, first?.targets ?? []))
  const { logs, others } = uniform ? oneCall(messages) : union(messages)
  const common = uniform ? placeNames(first?.targets ?? []) : undefined
  const args: AppendCall['args'] = [
    logs.size, others.length, publisher, key === undefined ? 0 : idempotencyMs, uniform ? 0 : 1, common?.names ?? ''
  ]
  for (const [group, { limits, last }] of logs) args.push(...nameOf(keys, group), packSettings(limits), randomBytesOf(8), last)
  for (const group of others) args.push(...nameOf(keys, group))
  const numbers = uniform ? undefined : new Map([...logs.keys(), ...others].map((group, index) => [group, index + 1]))
  for (const { nonce, prefix, rest, entries, targets } of messages) {
    const places = numbers === undefined ? common : placeNames(targets)
    args.push(places === undefined ? nonce : Buffer.concat([nonce, pack16(places.entries + entries)]), prefix, rest)
    if (numbers !== undefined) args.push(targetNumbers(targets, numbers), places?.names ?? '')
  }
  const groups = [...logs.keys()]
  return { script: append, keys: groups.flatMap(group => keysOf(keys, group, key)), args, groups }
}

/** The keys of one log; `key` is the idempotency key of the call. */
function keysOf (keys: Keys, group: string, key: string | undefined): string[] {
  const log = [keys.logMeta(group), keys.log(group)]
  return key === undefined ? log : [...log, keys.idempotency(group, key)]
}

/** Reads the reply of the script `append`, by group. */
export function decodeAppended (reply: unknown, groups: readonly string[]): Map<string, AppendedTo> {
  const fields = reply as Array<Buffer | number>
  return new Map(groups.map((group, index) => {
    const [bytes, offset, nonce, isKnown, differ, length] =
      fields.slice(6 * index, 6 * index + 6) as [Buffer, number, Buffer, number, Buffer, number]
    const epoch = bytes.toString('latin1')
    const known = isKnown === 1 ? { epoch, offset, nonce: unpackNonce(nonce) } : undefined
    return [group, { epoch, offset, known, difference: unpackSettings(differ), length }]
  }))
}

interface Targets {
  /** Settings of each log, and the sequence of the last message to it. */
  readonly logs: ReadonlyMap<string, { readonly limits: LogLimits, readonly last: number }>
  /** The groups that keep no log. */
  readonly others: readonly string[]
}

/** The targets of messages that all go to the same groups. */
function oneCall (messages: readonly Draft[]): Targets {
  const { targets = [], sequence: last = 0 } = messages.at(-1) ?? {}
  return {
    logs: new Map(targets.filter(isLogged).map(({ group, log }) => [group, { limits: log, last }])),
    others: targets.filter(target => !isLogged(target)).map(({ group }) => group)
  }
}

function union (messages: readonly Draft[]): Targets {
  const logs = new Map<string, { readonly limits: LogLimits, readonly last: number }>()
  const others = new Set<string>()
  for (const { targets, sequence } of messages) {
    for (const { group, log } of targets) {
      if (log === undefined) others.add(group)
      else logs.set(group, { limits: log, last: sequence })
    }
  }
  return { logs, others: [...others] }
}

function placeNames (targets: readonly AppendTarget[]): PlaceNames | undefined {
  return carriesPlaces(targets) ? encodePlaceNames(targets.filter(isLogged).map(({ group }) => group)) : undefined
}

function pack16 (number: number): Buffer {
  const bytes = Buffer.allocUnsafe(2)
  bytes.writeUInt16BE(number)
  return bytes
}

/** Groups with a log first, in the order of the names of the places. */
function targetNumbers (targets: readonly AppendTarget[], numbers: ReadonlyMap<string, number>): Buffer {
  const bytes = Buffer.allocUnsafe(2 * targets.length)
  const ordered = [...targets.filter(isLogged), ...targets.filter(target => !isLogged(target))]
  for (const [index, { group }] of ordered.entries()) bytes.writeUInt16BE(numbers.get(group) ?? 0, 2 * index)
  return bytes
}

function nameOf (keys: Keys, group: string): [channel: string, target: Buffer] {
  const target = { kind: 'group', name: group } as const
  return [keys.channel(target), encodeTarget(target)]
}

function sameGroups (a: readonly AppendTarget[], b: readonly AppendTarget[]): boolean {
  if (a === b) return true
  return a.length === b.length && a.every((target, index) => target.group === b[index]?.group && isLogged(target) === isLogged(b[index]))
}

function isLogged (target: AppendTarget): target is LoggedTarget {
  return target.log !== undefined
}
