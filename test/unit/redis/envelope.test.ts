import t from 'tap'
import type { Audience, Envelope, Target } from '../../../lib/backplane/backplane.ts'
import { decode, encode, encodeParts, encodePlaceNames, encodeTarget, markRetried } from '../../../lib/backplane/redis/envelope.ts'
import { connectionIdOf, drawId } from '../../../lib/ids.ts'
import { seededRandom } from '../../helpers/fakes.ts'

const random = seededRandom(20_260_726)
const oneOf = <Value>(...values: readonly Value[]): Value => values[random(values.length)] as Value
const bytes = (length: number): Buffer => Buffer.from(Array.from({ length }, () => random(256)))
const names = ['', 'lobby', ' ', 'grüße 🎉', '{0}:c:', 'x'.repeat(255), 'ü'.repeat(127), '\u0000'] as const

function randomEnvelope (): Envelope {
  const kind = oneOf<Envelope['kind']>('message', 'request', 'reply')
  const target: Target = { kind: oneOf('group', 'user', 'instance', 'all'), name: oneOf(...names) }
  return {
    origin: drawId(),
    sequence: oneOf(0, 1, 2 ** 32, 2 ** 48 - 1, random(2 ** 31)),
    kind,
    target,
    shared: oneOf(true, false),
    ...oneOf({}, { volatile: true }, { volatile: true, conflationKey: oneOf('k', 'grüße 🎉', 'x'.repeat(255)) }),
    at: oneOf(0, 1, 1_795_767_014_880, 2 ** 47 - 1),
    ...oneOf({}, { from: {} }, { from: { userId: 'grüße 🎉' } }, { from: { userId: 'x'.repeat(255), connectionId: 'y' } }),
    except: Array.from({ length: oneOf(0, 0, 1, 2, 300) }, () => connectionIdOf(drawId(), random(2 ** 31))),
    ...(kind === 'message' ? oneOf({}, { audience: { tags: ['vip'], taggedIn: ['grüße'] } }, { audience: { exceptUsers: ['u'] } }) : {}),
    command: kind === 'message' ? '' : oneOf('', '{"id":1}', '{"op":"ü🎉"}', 'x'.repeat(70_000)),
    binary: oneOf(true, false),
    payload: bytes(oneOf(0, 1, 125, 126, 5_000))
  }
}

t.test('what is decoded is what was encoded', async (t) => {
  for (let n = 0; n < 500; n++) {
    const envelope = randomEnvelope()
    const decoded = decode(encode(envelope, envelope.target))
    if (!envelope.payload.equals(decoded?.payload ?? Buffer.alloc(1))) t.fail('the payload differs')
    t.strictSame({ ...decoded, payload: '' }, { ...envelope, payload: '' })
  }
})

t.test('a text of any length fits into extensions', async (t) => {
  for (const length of [0, 1, 253, 254, 506, 507, 5_000]) {
    const envelope = { ...randomEnvelope(), trace: 'x'.repeat(length) }
    const decoded = decode(encode(envelope, envelope.target))
    t.ok(decoded?.trace === envelope.trace && decoded.payload.equals(envelope.payload), `${length} bytes`)
  }
})

t.test('a message to an audience that cannot be read is for nobody', async (t) => {
  const read = (audience: unknown): unknown => {
    return decode(
      encode({ ...randomEnvelope(), kind: 'message', command: '', audience: audience as Audience }, { kind: 'all', name: '' })
    )?.audience
  }
  t.strictSame(read({ tags: ['a'], later: 1 }), { tags: ['a'], later: 1 })
  for (const audience of [null, 5, 'x', { tags: 'a' }, { exceptGroups: [5] }, { exceptUsers: {} }, { taggedIn: null }]) {
    t.equal(read(audience), undefined)
  }
})

t.test('the target is that of the copy, not that of the envelope', async (t) => {
  const envelope = randomEnvelope()
  t.strictSame(decode(encode(envelope, { kind: 'user', name: 'ann' }))?.target, { kind: 'user', name: 'ann' })
})

t.test('the parts of an envelope make a whole one with any target, and with the places of its copies', async (t) => {
  const header = encode(randomEnvelope(), { kind: 'all', name: '' }).subarray(0, 24)
  for (let n = 0; n < 300; n++) {
    const envelope = randomEnvelope()
    const target: Target = { kind: 'group', name: oneOf(...names) }
    const { prefix, rest } = encodeParts(envelope, false)
    t.same(Buffer.concat([header, prefix, encodeTarget(target), rest]).subarray(32), encode(envelope, target).subarray(32))
    const places = Array.from({ length: 1 + random(5) }, () => {
      return { group: oneOf(...names), epoch: drawId().slice(0, 8), offset: random(2 ** 31) }
    })
    const where = places.map(({ epoch, offset }) => {
      const bytes = Buffer.from([16, 0, 4, ...Buffer.alloc(14)])
      bytes.write(epoch, 3, 'latin1')
      bytes.writeUIntBE(offset, 11, 6)
      return bytes
    })
    const shared = encodeParts(envelope, true)
    const { names: encodedNames, entries } = encodePlaceNames(places.map(({ group }) => group))
    const count = Buffer.alloc(2)
    count.writeUInt16BE(entries + shared.entries)
    const copy = Buffer.concat([header, shared.prefix, encodeTarget(target), count, encodedNames, ...where, shared.rest])
    const decoded = decode(copy)
    t.ok(envelope.payload.equals(decoded?.payload ?? Buffer.alloc(1)))
    t.strictSame({ ...decoded, payload: '' }, { ...envelope, target, places, payload: '' })
    const end = copy.length - shared.rest.length
    for (let length = end - 17 * places.length; length < end; length += 7) t.equal(decode(copy.subarray(0, length)), undefined)
  }
})

t.test('encoding copies the payload', async (t) => {
  const envelope = { ...randomEnvelope(), payload: Buffer.from('before') }
  const encoded = encode(envelope, envelope.target)
  envelope.payload.write('after!')
  t.equal(decode(encoded)?.payload.toString(), 'before')
})

t.test('a truncated envelope is none, or one with less payload; decoding never throws', async (t) => {
  for (let n = 0; n < 20; n++) {
    const envelope = { ...randomEnvelope(), payload: Buffer.from('payload') }
    const encoded = encode(envelope, envelope.target)
    const start = encoded.length - envelope.payload.length
    for (let length = 0; length < encoded.length; length += length < 400 || length > start - 50 ? 1 : 97) {
      const decoded = decode(encoded.subarray(0, length))
      if (length < start) {
        if (decoded !== undefined) t.fail(`${length} of ${encoded.length} bytes were taken for an envelope`)
      } else {
        t.equal(decoded?.payload.toString(), 'payload'.slice(0, length - start))
      }
    }
  }
})

t.test('random bytes are no envelope, and flipped bits never throw', async (t) => {
  let accepted = 0
  for (let n = 0; n < 20_000; n++) if (decode(bytes(random(120))) !== undefined) accepted++
  t.equal(accepted, 0)
  for (let n = 0; n < 20_000; n++) {
    const noise = bytes(41 + random(80))
    noise[0] = 0xd1
    noise[1] = 1
    noise[24] = oneOf(1, 4, 5)
    const decoded = decode(noise)
    if (decoded !== undefined) t.match(decoded, { kind: /message|request|reply/, target: { kind: /all|group|user|instance/ } })
  }
  for (let n = 0; n < 2_000; n++) {
    const envelope = randomEnvelope()
    const encoded = encode({ ...envelope, command: envelope.command.slice(0, 50) }, envelope.target)
    for (let flips = random(4); flips >= 0; flips--) {
      const at = random(encoded.length)
      encoded[at] = (encoded[at] ?? 0) ^ (1 << random(8))
    }
    decode(encoded)
  }
  t.pass('nothing was thrown')
})

t.test('what a newer version adds is skipped, unless it says that it must be understood', async (t) => {
  const envelope = { ...randomEnvelope(), kind: 'message' as const, command: '' }
  const change = (at: number, value: number): Envelope | undefined => {
    const encoded = encode(envelope, envelope.target)
    encoded[at] = value
    return decode(encoded)
  }
  const flags = encode(envelope, envelope.target)[25] ?? 0
  t.equal(change(0, 0xd2), undefined, 'another magic')
  t.equal(change(1, 2), undefined, 'another version')
  t.equal(change(24, 2), undefined, 'an unknown type')
  for (const must of [64, 128]) t.equal(change(25, flags | must), undefined, `flag ${must}`)
})

t.test('a message that is sent again says so, and nothing else of it changes', async (t) => {
  const envelope = { ...randomEnvelope(), kind: 'message' as const, command: '' }
  const parts = encodeParts(envelope, false)
  const header = encode(envelope, envelope.target).subarray(0, 24)
  const whole = (): Buffer => Buffer.concat([header, parts.prefix, encodeTarget(envelope.target), parts.rest])
  t.strictSame({ ...decode(whole()) }, { ...envelope })
  markRetried(parts)
  t.strictSame({ ...decode(whole()) }, { ...envelope, retried: true })
})
