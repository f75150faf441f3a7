import t from 'tap'
import { WebsocketGroupsError } from '../../../lib/errors.ts'
import { Hub } from '../../../lib/hub/hub.ts'
import { GroupReads } from '../../../lib/groups/reads.ts'
import type { Member } from '../../../lib/types.ts'
import { FakeBackplane, fakeConnection, member } from '../../helpers/fakes.ts'

interface Parts { readonly hub: Hub, readonly backplane: FakeBackplane, readonly readings: GroupReads }

function parts (policy: 'stale' | 'reject' = 'stale'): Parts {
  const [hub, backplane] = [new Hub(), new FakeBackplane()]
  return { hub, backplane, readings: new GroupReads(hub, backplane, policy) }
}

const members = (count: number, label = 'm'): Member[] => Array.from({ length: count }, (_, n) => member({ id: `${label}${n}` }))
const unavailable = new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE')

t.test('what the backplane answers is the answer, of age 0', async (t) => {
  const { backplane, readings } = parts()
  backplane.onRead = async () => members(3)
  const list = await readings.members('g')
  t.strictSame([...list], members(3))
  t.equal(list.ageMs, 0)
  t.equal(await readings.count('g'), 3)
})

t.test('a list is the caller\'s own', async (t) => {
  const { backplane, readings } = parts()
  backplane.onRead = async () => members(2)
  const list = await readings.members('g') as unknown as Member[]
  list.length = 0
  backplane.onRead = async () => { throw unavailable }
  const stale = await readings.members('g') as unknown as Member[]
  t.equal(stale.length, 2)
  stale.length = 0
  t.equal((await readings.members('g')).length, 2)
})

t.test('during an outage the last known answer is given with its age, unless that is too old or policy forbids', async (t) => {
  for (const error of [unavailable, new WebsocketGroupsError('WSG_TIMEOUT')]) {
    const { backplane, readings } = parts()
    await readings.count('g')
    await readings.members('g')
    backplane.onRead = async () => { throw error }
    t.equal(await readings.count('g'), 0)
    t.ok((await readings.members('g')).ageMs > 0)
    t.ok((await readings.members('g', { maxAgeMs: 60_000 })).ageMs > 0)
    await t.rejects(readings.count('g', { maxAgeMs: 0 }), error)
    await t.rejects(readings.members('unknown'), error)
    const strict = parts('reject')
    await strict.readings.count('g')
    strict.backplane.onRead = async () => { throw error }
    await t.rejects(strict.readings.count('g'), error)
  }
})

t.test('an error that is no outage is not answered with what was known', async (t) => {
  const { backplane, readings } = parts()
  await readings.count('g')
  backplane.onRead = async () => { throw new TypeError('a bug') }
  await t.rejects(readings.count('g'), TypeError)
})

t.test('a group that was never read is known by its members here, of unknown age', async (t) => {
  const { hub, backplane, readings } = parts()
  backplane.onRead = async () => { throw unavailable }
  const connection = fakeConnection('a')
  hub.add(connection)
  hub.join(connection, 'g', member(connection))
  const list = await readings.members('g')
  t.strictSame([[...list], list.ageMs], [[member(connection)], Infinity])
  t.equal(await readings.count('g'), 1)
  await t.rejects(readings.count('g', { maxAgeMs: 1e9 }), unavailable)
})

t.test('what is remembered has a limit, and what was not refreshed for the longest time goes first', async (t) => {
  const { backplane, readings } = parts()
  for (let n = 0; n < 10_000; n++) await readings.count(`g${n}`)
  await readings.count('g0')
  await readings.count('one more')
  backplane.onRead = async () => { throw unavailable }
  t.equal(await readings.count('g0'), 0)
  await t.rejects(readings.count('g1'), unavailable)
  t.equal(await readings.count('g2'), 0)

  backplane.onRead = async group => members(group === 'huge' ? 100_000 : 30_000)
  for (const group of ['a', 'b', 'c', 'a', 'd']) await readings.members(group)
  backplane.onRead = async () => { throw unavailable }
  t.equal((await readings.members('a')).length, 30_000)
  await t.rejects(readings.members('b'), unavailable, 'lists count by their members')
  backplane.onRead = async () => members(100_000)
  t.equal((await readings.members('huge')).length, 100_000)
  backplane.onRead = async () => { throw unavailable }
  await t.rejects(readings.members('huge'), unavailable, 'a list beyond all limits is answered, but not kept')
})

t.test('names are checked before anything is asked', async (t) => {
  const { backplane, readings } = parts()
  backplane.onRead = async () => { throw new Error('asked') }
  for (const group of ['', 'a\n', undefined, 5] as string[]) {
    await t.rejects(readings.count(group), { code: 'WSG_GROUP_NAME_INVALID' })
    await t.rejects(readings.members(group), { code: 'WSG_GROUP_NAME_INVALID' })
  }
})
