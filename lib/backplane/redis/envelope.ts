import type { Audience, Envelope, LoggedEnvelope, LogPosition, Target } from '../backplane.ts'
import { BytesReader } from './bytes-reader.ts'
import { groupEntries, isExtension, readExtensions, senderEntries, traceEntries } from './envelope-extensions.ts'

/*
 * Layout, big endian, version 1:
 *
 *   0  u8   0xD1 magic                     \
 *   1  u8   version                         |
 *   2  8 B  epoch      0 without a log      |  written by the script that appends to logs,
 *  10  u48  offset     0 without a log      |  zeros in a volatile message
 *  16  u32  nonce      0 without a log      |
 *  20  u32  prevNonce  0 without a log     /
 *  24  u8   type       1 message, 3 presence, 4 request, 5 reply, 6 probe, 7 message to an audience
 *  25  u8   flags      1 binary payload, 2 except list, 4 volatile, 8 conflation key, 16 shared, 0xC0: must be understood
 *  26  u48  time       milliseconds since 1970, by the clock of Redis as far as the origin knows it; its highest bit: retried
 *  32  u48  sequence
 *  38  u8   length, origin
 *      u8   target kind: 0 all, 1 group, 2 user, 3 instance;  u8 length, target name
 *      [u16 count, count x (u8 length, id of connection or session, or an extension)]      with flag 2
 *      [u8 length, conflation key]                                                         with flag 8
 *      [u32 length, command]                                    in all types but 1; in type 7 the audience, as JSON
 *      payload to the end
 *
 * `version` changes only when readers of this one could not skip what is new. Types may be added: readers ignore those they do not know.
 * Fields are added as extensions (envelope-extensions.ts), which old readers skip; a flag that changes the layout would have to be one of
 * 0xC0, which makes them ignore the whole envelope.
 */
const magic = 0xd1
const version = 1
const headerBytes = 38
/** What the script that appends writes in front of a message. */
export const logHeaderBytes = 24
const noEpoch = '\0'.repeat(8)
const maxIdLength = 255
const flag = { binary: 1, except: 2, volatile: 4, conflationKey: 8, shared: 16, mustUnderstand: 0xc0 } as const
const retriedBit = 2 ** 47
const types: readonly Envelope['kind'][] = ['message', 'presence', 'request', 'reply']
const typeBytes: readonly number[] = [1, 3, 4, 5]
/** A message to only some of those behind its target. A reader that does not know this type delivers it to nobody. */
const audienceType = 7
const kinds: ReadonlyArray<Target['kind']> = ['all', 'group', 'user', 'instance']

/** An envelope as it came from Redis. */
export interface StoredEnvelope extends Envelope {
  /** The publisher sent it before, with an unknown outcome: the log may have had it, with the same nonce, and lost it since. */
  readonly retried?: boolean | undefined
}

/** The bytes that all copies of an envelope have in common: the script that appends to logs adds the rest. */
export interface EnvelopeParts {
  /** The bytes from the type up to the origin. */
  readonly prefix: Buffer
  /** The bytes that follow the target; in a message with places, those that follow the places. */
  readonly rest: Buffer
  /** How many entries of the `except` list follow the places, in a message that has places. */
  readonly entries: number
  /** `prefix`, the target and `rest` in one, for a message to one group. */
  readonly whole?: Buffer | undefined
}

export function encode (envelope: Envelope, target: Target): Buffer {
  const entries = entriesOf(envelope)
  const nameBytes = Buffer.byteLength(target.name)
  const bytes = Buffer.allocUnsafe(headerBytes + 1 + envelope.origin.length + 2 + nameBytes + restBytes(envelope, entries, false))
  bytes.fill(0, 2, logHeaderBytes)
  bytes[0] = magic
  bytes[1] = version
  const at = writeTarget(bytes, target, nameBytes, writePrefix(bytes, envelope, entries.length > 0, logHeaderBytes))
  writeRest(bytes, envelope, entries, false, at)
  return bytes
}

/** `places`: whether each copy says where all copies stand in their logs. `only`: the target, if there is only one. */
export function encodeParts (envelope: Envelope, places: boolean, only?: Target): EnvelopeParts {
  const entries = entriesOf(envelope)
  const prefixBytes = headerBytes - logHeaderBytes + 1 + envelope.origin.length
  const nameBytes = only === undefined ? 0 : Buffer.byteLength(only.name)
  const restAt = prefixBytes + (only === undefined ? 0 : 2 + nameBytes)
  const bytes = Buffer.allocUnsafe(restAt + restBytes(envelope, entries, places))
  writePrefix(bytes, envelope, places || entries.length > 0, 0)
  if (only !== undefined) writeTarget(bytes, only, nameBytes, prefixBytes)
  writeRest(bytes, envelope, entries, places, restAt)
  return {
    prefix: bytes.subarray(0, prefixBytes),
    rest: bytes.subarray(restAt),
    entries: entries.length,
    whole: only === undefined ? undefined : bytes
  }
}

/** Marks a message that is sent once more, after an unknown outcome. */
export function markRetried ({ prefix }: EnvelopeParts): void {
  prefix[2] = (prefix[2] ?? 0) | 0x80
}

export function encodeTarget (target: Target): Buffer {
  const nameBytes = Buffer.byteLength(target.name)
  const bytes = Buffer.allocUnsafe(2 + nameBytes)
  writeTarget(bytes, target, nameBytes, 0)
  return bytes
}

/** The bytes between the target and the places of the copies in the logs of these groups. The script that appends adds the places. */
export interface PlaceNames {
  /** The entries with the names of the groups. Their count is left out, as it differs from message to message. */
  readonly names: Buffer
  /** How many entries there are, those of the places included. */
  readonly entries: number
}

export function encodePlaceNames (groups: readonly string[]): PlaceNames {
  const entries = groupEntries(groups)
  return { names: Buffer.concat(entries.flatMap(entry => [Buffer.from([entry.length]), entry])), entries: entries.length + groups.length }
}

/** The nonce of the message before this one in the log. */
export function previousNonce (bytes: Buffer): number {
  return bytes.readUInt32BE(20)
}

/** Where a message stands in its log, whatever its type. */
export function positionOf (bytes: Buffer): LogPosition {
  return { epoch: bytes.toString('latin1', 2, 10), offset: bytes.readUIntBE(10, 6), nonce: bytes.readUInt32BE(16) }
}

/** Returns `undefined` for anything but an envelope that this version can act on; never throws. The payload is a slice of `bytes`. */
export function decode (bytes: Buffer): StoredEnvelope | undefined {
  if (bytes.length < headerBytes + 3 || bytes[0] !== magic || bytes[1] !== version) return undefined
  const type = bytes[24] ?? 0
  const kind = type === audienceType ? 'message' : types[typeBytes.indexOf(type)]
  const flags = bytes[25] ?? 0
  if (kind === undefined || (flags & flag.mustUnderstand) !== 0) return undefined
  const reader = new BytesReader(bytes, headerBytes)
  const origin = reader.text(reader.uint(1))
  const targetKind = kinds[reader.uint(1)]
  const name = reader.text(reader.uint(1))
  const except: string[] = []
  const entries = (flags & flag.except) === 0 ? undefined : readEntries(reader, except)
  const conflationKey = (flags & flag.conflationKey) === 0 ? undefined : reader.text(reader.uint(1))
  const command = type === typeBytes[0] ? '' : reader.text(reader.uint(4))
  const audience = type === audienceType ? parseAudience(command) : undefined
  if (reader.failed || targetKind === undefined || (type === audienceType && audience === undefined)) return undefined
  const { from, places, trace } = entries === undefined ? {} : readExtensions(entries)
  const position = bytes.toString('latin1', 2, 10) === noEpoch ? undefined : positionOf(bytes)
  return {
    ...(position === undefined ? {} : { position }),
    ...(places === undefined ? {} : { places }),
    origin,
    sequence: bytes.readUIntBE(32, 6),
    at: bytes.readUIntBE(26, 6) % retriedBit,
    ...(from === undefined ? {} : { from }),
    ...(trace === undefined ? {} : { trace }),
    kind,
    target: { kind: targetKind, name },
    shared: (flags & flag.shared) !== 0,
    ...((flags & flag.volatile) === 0 ? {} : { volatile: true }),
    ...(conflationKey === undefined ? {} : { conflationKey }),
    ...(((bytes[26] ?? 0) & 0x80) === 0 ? {} : { retried: true }),
    except,
    ...(audience === undefined ? {} : { audience }),
    command: audience === undefined ? command : '',
    binary: (flags & flag.binary) !== 0,
    payload: bytes.subarray(reader.at)
  }
}

/** Whether this is an envelope with a place in a log. */
export function isLogged<Kind extends Envelope> (envelope: Kind | undefined): envelope is Kind & LoggedEnvelope {
  return envelope?.position !== undefined
}

/** Adds the ids to `except`. Returns the extensions in the list, if there are any. */
function readEntries (reader: BytesReader, except: string[]): Buffer[] | undefined {
  let extensions: Buffer[] | undefined
  for (let left = reader.uint(2); left > 0 && !reader.failed; left--) {
    const length = reader.uint(1)
    if (isExtension(reader.next)) (extensions ??= []).push(reader.bytes(length))
    else except.push(reader.text(length))
  }
  return extensions
}

/** The entries of the `except` list: extensions, then ids. */
function entriesOf ({ except, from, trace }: Envelope): ReadonlyArray<string | Buffer> {
  const ids = except.length === 0 ? except : except.filter(isPossible)
  if (from === undefined && trace === undefined) return ids
  return [...from === undefined ? [] : senderEntries(from), ...trace === undefined ? [] : traceEntries(trace), ...ids]
}

function writePrefix (bytes: Buffer, envelope: Envelope, hasEntries: boolean, at: number): number {
  const { origin, sequence, kind, shared, volatile, conflationKey, binary, at: time = Date.now() } = envelope
  bytes[at] = envelope.audience === undefined ? typeBytes[types.indexOf(kind)] ?? 0 : audienceType
  bytes[at + 1] = (binary ? flag.binary : 0) | (hasEntries ? flag.except : 0) | (shared ? flag.shared : 0) |
    (volatile === true ? flag.volatile : 0) | (conflationKey === undefined ? 0 : flag.conflationKey)
  bytes.writeUIntBE(time, at + 2, 6)
  bytes.writeUIntBE(sequence, at + 8, 6)
  return writeShort(bytes, origin, at + 14)
}

function writeTarget (bytes: Buffer, target: Target, nameBytes: number, at: number): number {
  bytes[at] = kinds.indexOf(target.kind)
  bytes[at + 1] = nameBytes
  return at + 2 + bytes.write(target.name, at + 2)
}

/** `counted`: the number of entries is written elsewhere. */
function restBytes (envelope: Envelope, entries: ReadonlyArray<string | Buffer>, counted: boolean): number {
  const { conflationKey, payload } = envelope
  const command = commandOf(envelope)
  let entryBytes = entries.length > 0 && !counted ? 2 : 0
  for (const { length } of entries) entryBytes += 1 + length
  const keyBytes = conflationKey === undefined ? 0 : 1 + Buffer.byteLength(conflationKey)
  const commandBytes = command === undefined ? 0 : 4 + Buffer.byteLength(command)
  return entryBytes + keyBytes + commandBytes + payload.length
}

function writeRest (
  bytes: Buffer, envelope: Envelope, entries: ReadonlyArray<string | Buffer>, counted: boolean, start: number
): void {
  const { conflationKey, payload } = envelope
  const command = commandOf(envelope)
  let at = start
  if (entries.length > 0 && !counted) at = bytes.writeUInt16BE(entries.length, at)
  for (const entry of entries) at = writeShort(bytes, entry, at)
  if (conflationKey !== undefined) {
    const written = bytes.write(conflationKey, at + 1)
    bytes[at] = written
    at += 1 + written
  }
  if (command !== undefined) {
    const written = bytes.write(command, at + 4)
    bytes.writeUInt32BE(written, at)
    at += 4 + written
  }
  payload.copy(bytes, at)
}

/** The field `command` of the layout: the audience as JSON, or the command; `undefined` for a message to all behind its target. */
function commandOf ({ kind, command, audience }: Envelope): string | undefined {
  if (audience !== undefined) return JSON.stringify(audience)
  return kind === 'message' ? undefined : command
}

/** Returns `undefined` for text that this package did not write: the message is then for nobody. */
function parseAudience (text: string): Audience | undefined {
  try {
    const audience = JSON.parse(text) as Audience | null
    if (typeof audience !== 'object' || audience === null) return undefined
    const { exceptUsers, exceptGroups, tags, taggedIn } = audience
    const isWhole = [exceptUsers, exceptGroups, tags, taggedIn].every(list => list === undefined || isListOfStrings(list))
    return isWhole ? audience : undefined
  } catch {
    return undefined
  }
}

function isListOfStrings (value: unknown): boolean {
  return Array.isArray(value) && value.every(item => typeof item === 'string')
}

/** Whether the text may be the id of a connection or session. A longer one excludes nobody, and its length would not fit into a byte. */
function isPossible (id: string): boolean {
  return id.length <= maxIdLength
}

/** Ids are ASCII: one byte a character. */
function writeShort (bytes: Buffer, id: string | Buffer, at: number): number {
  bytes[at] = id.length
  return at + 1 + (typeof id === 'string' ? bytes.write(id, at + 1, 'latin1') : id.copy(bytes, at + 1))
}
