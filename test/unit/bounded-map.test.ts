import t from 'tap'
import { BoundedMap } from '../../lib/bounded-map.ts'

t.test('evicts the oldest entries while all together weigh too much', async (t) => {
  const map = new BoundedMap<string, string>({ maxWeight: 5, weigh: value => value.length })
  map.set('a', 'xx')
  map.set('b', 'xx')
  map.set('a', 'xxx')
  t.equal(map.weight, 5, 'an entry that is set again counts once')
  map.set('c', 'x')
  t.equal(map.get('b'), undefined, 'b is the oldest, as a was set again')
  t.equal(map.get('a'), 'xxx')
  t.equal(map.size, 2)
  t.equal(map.weight, 4)
})

t.test('keeps the newest entry, however heavy it is', async (t) => {
  const map = new BoundedMap<string, number>({ maxWeight: 5, weigh: value => value })
  map.set('a', 1)
  map.set('b', 50)
  t.equal(map.get('b'), 50)
  t.equal(map.size, 1)
  map.set('c', 1)
  t.equal(map.has('b'), false)
  t.equal(map.weight, 1)
})

t.test('forgets entries by age', async (t) => {
  let now = 0
  const map = new BoundedMap<string, number>({ maxWeight: 100, maxAgeMs: 10, now: () => now })
  map.set('a', 1)
  now = 8
  map.set('b', 2)
  now = 11
  t.equal(map.has('a'), false)
  t.equal(map.ageMs('b'), 3)
  t.equal(map.ageMs('a'), undefined)
  t.equal(map.size, 2, 'the next set evicts it')
  map.set('c', 3)
  t.equal(map.size, 2)
})

t.test('lists what it holds, the oldest first', async (t) => {
  let now = 0
  const map = new BoundedMap<string, number>({ maxWeight: 2, maxAgeMs: 10, now: () => now })
  for (const [name, value] of [['a', 1], ['b', 2], ['c', 3]] as const) map.set(name, value)
  t.strictSame([...map], [['b', 2], ['c', 3]])
  now = 11
  t.strictSame([...map], [])
})

t.test('delete and clear keep the weight right', async (t) => {
  const map = new BoundedMap<string, number>({ maxWeight: 100, weigh: value => value })
  map.set('a', 3)
  map.set('b', 4)
  t.equal(map.delete('a'), true)
  t.equal(map.delete('a'), false)
  t.equal(map.weight, 4)
  map.clear()
  t.equal(map.weight, 0)
  t.equal(map.size, 0)
})
