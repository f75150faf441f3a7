// Envelopes across versions: what 0.1.0 wrote is read as ever, and what is written now has all that 0.1.0 knows where 0.1.0 looks for it.
import t from 'tap'
import type { Envelope, Target } from '../../../lib/backplane/backplane.ts'
import { decode, encode, encodeParts, encodePlaceNames, encodeTarget } from '../../../lib/backplane/redis/envelope.ts'

const target: Target = { kind: 'group', name: 'lobby' }
const plain: Envelope = {
  origin: 'aaaaaaaaaa',
  sequence: 7,
  kind: 'message',
  target,
  shared: false,
  except: [],
  command: '',
  binary: false,
  payload: Buffer.from('hello')
}

// Written by version 0.1.0 at 1,764,000,000,000.
const recorded: ReadonlyArray<readonly [hex: string, envelope: Partial<Envelope>]> = [
  [
    'd101000000000000000000000000000000000000000000000100019ab697e8000000000000070a6161616161616161616101056c6f62627968656c6c6f',
    {}
  ],
  [
    'd10100000000000000000000000000000000000000000000011f019ab697e8000000000000070a6161616161616161616101076772c3bcc39f6500020c6262' +
      '62626262626262622e310773657373696f6e02c3bc00ff',
    {
      target: { kind: 'group', name: 'grüße' },
      shared: true,
      volatile: true,
      conflationKey: 'ü',
      except: ['bbbbbbbbbb.1', 'session'],
      binary: true,
      payload: Buffer.from([0, 255])
    }
  ],
  [
    'd101000000000000000000000000000000000000000000000400019ab697e8000000000000070a61616161616161616161030a6363636363636363636300' +
      '0000147b226964223a312c226f70223a2273656e64227d78',
    {
      kind: 'request',
      target: { kind: 'instance', name: 'cccccccccc' },
      command: '{"id":1,"op":"send"}',
      payload: Buffer.from('x')
    }
  ]
]

t.test('what 0.1.0 wrote is read, and written the same where nothing is new', async (t) => {
  for (const [hex, fields] of recorded) {
    const envelope = { ...plain, at: 1_764_000_000_000, ...fields }
    t.strictSame(decode(Buffer.from(hex, 'hex')), envelope)
    t.equal(encode(envelope, envelope.target).toString('hex'), hex)
  }
})

/** As 0.1.0 reads an envelope: what it does not know is an id in the list of those who are excepted, and excepts nobody. */
function readAsBefore (bytes: Buffer): { readonly group: string, readonly except: string[], readonly payload: string } | undefined {
  const flags = bytes[25] ?? 0
  if (bytes[1] !== 1 || bytes[24] !== 1 || (flags & 0xc0) !== 0) return undefined
  let at = 38
  const short = (): string => {
    const start = at + 1
    at = start + (bytes[at] ?? 0)
    return bytes.toString('utf8', start, at)
  }
  short()
  at++
  const group = short()
  const except: string[] = []
  if ((flags & 2) !== 0) {
    const count = bytes.readUInt16BE(at)
    at += 2
    while (except.length < count) except.push(short())
  }
  if ((flags & 8) !== 0) short()
  return { group, except, payload: bytes.toString('utf8', at) }
}

t.test('0.1.0 finds the payload of messages that name their sender', async (t) => {
  const connectionId = 'aaaaaaaaaa.1'
  for (const from of [{}, { userId: 'ann' }, { userId: 'ü'.repeat(127), connectionId }, { userId: 'x'.repeat(255) }, { connectionId }]) {
    const envelope: Envelope = { ...plain, from, except: ['bbbbbbbbbb.1'], conflationKey: 'k', volatile: true }
    const bytes = encode(envelope, target)
    t.match(decode(bytes), { from, except: envelope.except })
    const read = readAsBefore(bytes)
    t.match(read, { group: 'lobby', payload: 'hello' })
    t.strictSame(read?.except.filter(id => !id.startsWith('\0')), envelope.except)
  }
})

t.test('0.1.0 finds the payload of messages that say where their copies stand', async (t) => {
  const groups = ['lobby', 'x'.repeat(255)]
  const { prefix, rest, entries } = encodeParts({ ...plain, shared: true, from: { userId: 'ann' } }, true)
  const places = encodePlaceNames(groups)
  const count = Buffer.alloc(2)
  count.writeUInt16BE(places.entries + entries)
  const header = encode(plain, target).subarray(0, 24)
  const place = Buffer.from([16, 0, 4, ...Buffer.from('epoch..1'), 0, 0, 0, 0, 0, 9])
  const bytes = Buffer.concat([header, prefix, encodeTarget(target), count, places.names, place, place, rest])
  t.strictSame(decode(bytes)?.places, groups.map(group => ({ group, epoch: 'epoch..1', offset: 9 })))
  t.match(readAsBefore(bytes), { group: 'lobby', payload: 'hello' })
})

t.test('extensions that a later version adds are skipped, and broken ones do not hide a message', async (t) => {
  const base = encode({ ...plain, except: ['bbbbbbbbbb.1'] }, target)
  const listAt = base.length - 'hello'.length - 13 - 2
  const withEntries = (...entries: number[][]): Buffer => {
    const list = entries.flatMap(entry => [entry.length, ...entry])
    return Buffer.concat([base.subarray(0, listAt), Buffer.from([0, 1 + entries.length]), Buffer.from(list), base.subarray(listAt + 2)])
  }
  const broken: number[][][] = [[[0]], [[0, 9, 1, 2]], [[0, 0x84, 1]], [[0, 3, 65]], [[0, 3, 65], [0, 4, 1]], [[0, 4, ...Buffer.alloc(14)]]]
  for (const entries of broken) {
    const { from, places, except, payload } = decode(withEntries(...entries)) ?? {}
    t.strictSame({ from, places, except }, { from: undefined, places: undefined, except: ['bbbbbbbbbb.1'] }, JSON.stringify(entries))
    t.equal(payload?.toString(), 'hello')
  }
})
