import type { Sender } from '../../types.ts'
import type { Audience, Envelope, LoggedEnvelope, LogPosition, Place, Target } from '../backplane.ts'
import { BytesReader } from './bytes-reader.ts'

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
 *  25  u8   flags      1 binary payload, 2 except list, 4 volatile, 8 conflation key, 16 shared, 32 from, 0x40 places, 0xC0: must
 *                      be understood
 *  26  u48  time       milliseconds since the epoch, by the clock of Redis as far as the origin knows it; its highest bit: retried
 *  32  u48  sequence
 *  38  u8   length, origin
 *      u8   target kind: 0 all, 1 group, 2 user, 3 instance;  u8 length, target name
 *      [u16 count, count x (u8 length, name of a group), count x (8 B epoch, u48 offset) in its log]    with flag 0x40
 *      [u16 count, count x (u8 length, id of connection or session)]                       with flag 2
 *      [u8 length, conflation key]                                                         with flag 8
 *      [u8 length, user id, u8 length, connection id] of the sender, '' for none           with flag 32
 *      [u32 length, command]                                    in all but messages; of a message to an audience, that as JSON
 *      payload to the end
 *
 * `version` changes only when a reader of this one could not skip what is new. Types may be added, and flags too: readers ignore those they
 * do not know, unless one of the bits 0xC0 is set.
 */
const magic = 0xd1
const version = 1
const headerBytes = 38
/** What the script that appends writes in front of a message. */
export const logHeaderBytes = 24
const noEpoch = '\0'.repeat(8)
const maxIdLength = 255
const flag = { binary: 1, except: 2, volatile: 4, conflationKey: 8, shared: 16, from: 32, places: 0x40, mustUnderstand: 0x80 } as const
const retriedBit = 2 ** 47
const types: readonly Envelope['kind'][] = ['message', 'presence', 'request', 'reply']
const typeBytes: readonly number[] = [1, 3, 4, 5]
/** A message that not all are to get. A version that does not know this gives it to nobody. */
const audienceType = 7
const kinds: ReadonlyArray<Target['kind']> = ['all', 'group', 'user', 'instance']

/** An envelope as it came from Redis. */
export interface StoredEnvelope extends Envelope {
  /** The publisher sent it before, with an unknown outcome: it may have stood in a log, with the same nonce, that lost it since. */
  readonly retried?: boolean | undefined
}

/** An envelope without what differs between its copies: the script that appends to logs puts them together. */
export interface EnvelopeParts {
  /** From the type up to the origin. */
  readonly prefix: Buffer
  /** What follows the target and the places. */
  readonly rest: Buffer
  /** Both, with the target between them: of a message to one group. */
  readonly whole?: Buffer | undefined
}

export function encode (envelope: Envelope, target: Target): Buffer {
  const except = exceptOf(envelope)
  const nameBytes = Buffer.byteLength(target.name)
  const bytes = Buffer.allocUnsafe(headerBytes + 1 + envelope.origin.length + 2 + nameBytes + restBytes(envelope, except))
  bytes.fill(0, 2, logHeaderBytes)
  bytes[0] = magic
  bytes[1] = version
  const at = writeTarget(bytes, target, nameBytes, writePrefix(bytes, envelope, except, 0, logHeaderBytes))
  writeRest(bytes, envelope, except, at)
  return bytes
}

/** `places`: the copies say where each of them stands. `only`: the target, where there is but one. */
export function encodeParts (envelope: Envelope, places: boolean, only?: Target): EnvelopeParts {
  const except = exceptOf(envelope)
  const prefixBytes = headerBytes - logHeaderBytes + 1 + envelope.origin.length
  const nameBytes = only === undefined ? 0 : Buffer.byteLength(only.name)
  const restAt = prefixBytes + (only === undefined ? 0 : 2 + nameBytes)
  const bytes = Buffer.allocUnsafe(restAt + restBytes(envelope, except))
  writePrefix(bytes, envelope, except, places ? flag.places : 0, 0)
  if (only !== undefined) writeTarget(bytes, only, nameBytes, prefixBytes)
  writeRest(bytes, envelope, except, restAt)
  return { prefix: bytes.subarray(0, prefixBytes), rest: bytes.subarray(restAt), whole: only === undefined ? undefined : bytes }
}

/** The message is sent once more, after an unknown outcome. */
export function markRetried ({ prefix }: EnvelopeParts): void {
  prefix[2] = (prefix[2] ?? 0) | 0x80
}

export function encodeTarget (target: Target): Buffer {
  const nameBytes = Buffer.byteLength(target.name)
  const bytes = Buffer.allocUnsafe(2 + nameBytes)
  writeTarget(bytes, target, nameBytes, 0)
  return bytes
}

/** The names in front of the places: only the script knows where in their logs the copies will stand. */
export function encodePlaceNames (groups: readonly string[]): Buffer {
  const count = Buffer.allocUnsafe(2)
  count.writeUInt16BE(groups.length)
  return Buffer.concat([count, ...groups.flatMap(group => [Buffer.from([Buffer.byteLength(group)]), Buffer.from(group)])])
}

/** The nonce of the message before this one in the log. */
export function previousNonce (bytes: Buffer): number {
  return bytes.readUInt32BE(20)
}

/** Where a message stands in its log, for messages of every kind. */
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
  const places = (flags & flag.places) === 0 ? undefined : readPlaces(reader)
  const except: string[] = []
  if ((flags & flag.except) !== 0) {
    for (let left = reader.uint(2); left > 0 && !reader.failed; left--) except.push(reader.text(reader.uint(1)))
  }
  const conflationKey = (flags & flag.conflationKey) === 0 ? undefined : reader.text(reader.uint(1))
  const from = (flags & flag.from) === 0 ? undefined : readSender(reader)
  const command = type === typeBytes[0] ? '' : reader.text(reader.uint(4))
  const audience = type === audienceType ? parseAudience(command) : undefined
  if (reader.failed || targetKind === undefined || (type === audienceType && audience === undefined)) return undefined
  const position = bytes.toString('latin1', 2, 10) === noEpoch ? undefined : positionOf(bytes)
  return {
    ...(position === undefined ? {} : { position }),
    ...(places === undefined ? {} : { places }),
    origin,
    sequence: bytes.readUIntBE(32, 6),
    at: bytes.readUIntBE(26, 6) % retriedBit,
    ...(from === undefined ? {} : { from }),
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

/** Whether this is an envelope that stands in a log. */
export function isLogged<Kind extends Envelope> (envelope: Kind | undefined): envelope is Kind & LoggedEnvelope {
  return envelope?.position !== undefined
}

function readPlaces (reader: BytesReader): Place[] {
  const groups: string[] = []
  for (let left = reader.uint(2); left > 0 && !reader.failed; left--) groups.push(reader.text(reader.uint(1)))
  return groups.map(group => ({ group, epoch: reader.latin1(8), offset: reader.uint(6) }))
}

function exceptOf ({ except }: Envelope): readonly string[] {
  return except.length === 0 ? except : except.filter(isPossible)
}

function writePrefix (bytes: Buffer, envelope: Envelope, except: readonly string[], flags: number, at: number): number {
  const { origin, sequence, kind, shared, volatile, conflationKey, binary, from, at: time = Date.now() } = envelope
  bytes[at] = envelope.audience === undefined ? typeBytes[types.indexOf(kind)] ?? 0 : audienceType
  bytes[at + 1] = flags | (binary ? flag.binary : 0) | (except.length > 0 ? flag.except : 0) | (shared ? flag.shared : 0) |
    (volatile === true ? flag.volatile : 0) | (conflationKey === undefined ? 0 : flag.conflationKey) | (from === undefined ? 0 : flag.from)
  bytes.writeUIntBE(time, at + 2, 6)
  bytes.writeUIntBE(sequence, at + 8, 6)
  return writeShort(bytes, origin, at + 14)
}

function writeTarget (bytes: Buffer, target: Target, nameBytes: number, at: number): number {
  bytes[at] = kinds.indexOf(target.kind)
  bytes[at + 1] = nameBytes
  return at + 2 + bytes.write(target.name, at + 2)
}

function restBytes (envelope: Envelope, except: readonly string[]): number {
  const { conflationKey, from, payload } = envelope
  let exceptBytes = except.length > 0 ? 2 : 0
  for (const id of except) exceptBytes += 1 + id.length
  const keyBytes = conflationKey === undefined ? 0 : 1 + Buffer.byteLength(conflationKey)
  const command = commandOf(envelope)
  const commandBytes = command === undefined ? 0 : 4 + Buffer.byteLength(command)
  return exceptBytes + keyBytes + senderBytes(from) + commandBytes + payload.length
}

function writeRest (bytes: Buffer, envelope: Envelope, except: readonly string[], start: number): void {
  const { conflationKey, from, payload } = envelope
  const command = commandOf(envelope)
  let at = start
  if (except.length > 0) {
    at = bytes.writeUInt16BE(except.length, at)
    for (const id of except) at = writeShort(bytes, id, at)
  }
  if (conflationKey !== undefined) {
    at = writeText(bytes, conflationKey, at)
  }
  if (from !== undefined) at = writeText(bytes, from.connectionId ?? '', writeText(bytes, from.userId ?? '', at))
  if (command !== undefined) {
    const written = bytes.write(command, at + 4)
    bytes.writeUInt32BE(written, at)
    at += 4 + written
  }
  payload.copy(bytes, at)
}

/** What stands in front of the payload; `undefined` for a message to all. */
function commandOf ({ kind, command, audience }: Envelope): string | undefined {
  if (audience !== undefined) return JSON.stringify(audience)
  return kind === 'message' ? undefined : command
}

/** `undefined` for what this package did not write: the message is for nobody then. */
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

function readSender (reader: BytesReader): Sender {
  const [userId, connectionId] = [reader.text(reader.uint(1)), reader.text(reader.uint(1))]
  return { ...(userId === '' ? {} : { userId }), ...(connectionId === '' ? {} : { connectionId }) }
}

function senderBytes (from: Sender | undefined): number {
  return from === undefined ? 0 : 2 + Buffer.byteLength(from.userId ?? '') + Buffer.byteLength(from.connectionId ?? '')
}

/** At most 255 bytes. */
function writeText (bytes: Buffer, text: string, at: number): number {
  const written = bytes.write(text, at + 1)
  bytes[at] = written
  return at + 1 + written
}

/** What a caller gives as the id of a connection may be anything; what cannot be one excludes nobody, and would not fit. */
function isPossible (id: string): boolean {
  return id.length <= maxIdLength
}

/** Ids are ASCII: one byte a character. */
function writeShort (bytes: Buffer, id: string, at: number): number {
  bytes[at] = id.length
  return at + 1 + bytes.write(id, at + 1, 'latin1')
}
