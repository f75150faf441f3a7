import t from 'tap'
import { connectionIdOf, drawId, ownerOf } from '../../../lib/ids.ts'
import { EnvelopeFactory, everyone, groupTargets, toBuffer, userTarget } from '../../../lib/delivery/envelopes.ts'
import { exclusionOf } from '../../../lib/hub/exclusion.ts'
import type { AnyConnection, BroadcastOptions, Data } from '../../../lib/types.ts'

t.test('ids are drawn evenly from 62 characters, and never twice', async (t) => {
  const ids = Array.from({ length: 20_000 }, drawId)
  t.equal(new Set(ids).size, ids.length)
  t.ok(ids.every(id => /^[0-9A-Za-z]{10}$/.test(id)))
  const counts = new Map<string, number>()
  for (const character of ids.join('')) counts.set(character, (counts.get(character) ?? 0) + 1)
  t.equal(counts.size, 62)
  const expected = 200_000 / 62
  // Six standard deviations: a fair draw fails this once in some ten million runs.
  for (const [character, count] of counts) t.ok(Math.abs(count - expected) < 6 * Math.sqrt(expected), `${character}: ${count}`)
})

t.test('a connection\'s id names its instance, and nothing else does', async (t) => {
  const instance = drawId()
  for (const n of [1, 35, 36, 2 ** 31, Number.MAX_SAFE_INTEGER]) t.equal(ownerOf(connectionIdOf(instance, n)), instance)
  t.not(connectionIdOf(instance, 1), connectionIdOf(instance, 2))
  for (const text of [
    '', '.', instance, `${instance}.`, `.${instance}`, `${instance}.1.2`, `${instance}.A`, `${instance}x.1`, `${instance.slice(1)}.1`,
    `${instance}.1\n`, `${instance}.-1`, `${instance}.${'1'.repeat(12)}`
  ]) {
    t.equal(ownerOf(text), undefined, JSON.stringify(text))
  }
})

t.test('a sender numbers its envelopes in the order they are made', async (t) => {
  const sender = new EnvelopeFactory()
  const first = sender.message(everyone, 'a', {})
  const second = sender.command('request', { kind: 'instance', name: 'x' }, '{}')
  const third = sender.message(groupTargets(['g', 'h', 'g']), Buffer.from('b'), { except: `${sender.origin}.1` })
  t.strictSame([first, second, third].map(({ sequence }) => sequence), [1, 2, 3])
  t.strictSame([first, second, third].map(({ origin }) => origin), Array(3).fill(sender.origin))
  t.match(first, { kind: 'message', target: { kind: 'all', name: '' }, shared: false, except: [], command: '', binary: false })
  t.match(second, { kind: 'request', target: { kind: 'instance', name: 'x' }, command: '{}', binary: false, payload: Buffer.alloc(0) })
  t.match(third, { target: { kind: 'group', name: 'g' }, shared: true, except: [`${sender.origin}.1`], binary: true })
  t.not(new EnvelopeFactory().origin, sender.origin)
})

t.test('data is copied, from whatever kind of Uint8Array', async (t) => {
  const memory = new Uint8Array([1, 2, 3, 4, 5])
  for (const data of [memory, memory.subarray(1, 3), Buffer.from(memory), Buffer.from(memory.buffer, 2, 2)]) {
    const copy = toBuffer(data)
    t.strictSame([...copy], [...data])
    t.ok(Buffer.isBuffer(copy))
    const before = [...copy]
    data.fill(9)
    t.strictSame([...copy], before)
  }
  t.equal(toBuffer('grüße').toString(), 'grüße')
  for (const data of [
    undefined, null, 1, {}, [1], new ArrayBuffer(1), new Uint16Array(1), new DataView(new ArrayBuffer(1)), new Blob([])
  ] as unknown as Data[]) {
    t.throws(() => toBuffer(data), { code: 'WSG_DATA_INVALID' })
  }
})

type Except = NonNullable<BroadcastOptions['except']>

const exceptIds = (
  except: Except, find?: (id: string) => { id: string, sessionName?: string }
): readonly string[] => new EnvelopeFactory(find).message(everyone, '', { except }).except

t.test('except takes one or many, and what is no connection\'s id excludes nobody', async (t) => {
  const id = connectionIdOf(drawId(), 7)
  const connection = { id } as AnyConnection
  t.strictSame(exceptIds(id), [id])
  t.strictSame(exceptIds(connection), [id])
  t.strictSame(exceptIds([connection, id, 'nobody', '', 'ü'.repeat(300)]), [id, id])
})

t.test('except names the session of a connection too, also of one that is known by its id alone', async (t) => {
  const id = connectionIdOf(drawId(), 7)
  const closed = { id, sessionName: 'session' } as unknown as AnyConnection
  t.strictSame(exceptIds(closed), [id, 'session'])
  t.strictSame(exceptIds(id, () => ({ id, sessionName: 'session' })), [id, 'session'])
  t.strictSame(exceptIds([id, 'nobody'], () => ({ id })), [id], 'a raw one has none')
  const excludes = exclusionOf({ except: [id, 'session'] })
  const untagged = { isIn: () => false }
  t.equal(excludes?.({ id, ...untagged }), true)
  t.equal(excludes?.({ id: 'other', sessionName: 'session', ...untagged }), true)
  t.equal(excludes?.({ id: 'other', ...untagged }), false)
  t.equal(exclusionOf({ except: [] }), undefined)
})

t.test('targets are checked names, each once', async (t) => {
  t.strictSame(groupTargets('g'), [{ kind: 'group', name: 'g' }])
  t.strictSame(groupTargets(['h', 'g', 'h']), [{ kind: 'group', name: 'h' }, { kind: 'group', name: 'g' }])
  t.strictSame(groupTargets([]), [])
  t.strictSame(userTarget('u'), { kind: 'user', name: 'u' })
  for (const group of [undefined, null, 5, {}, new Set(['g']), ['g', undefined], [['g']], '', ['']] as unknown as string[]) {
    t.throws(() => groupTargets(group), { code: 'WSG_GROUP_NAME_INVALID' })
  }
  t.throws(() => userTarget(''), { code: 'WSG_USER_ID_INVALID' })
})
