import t from 'tap'
import { Round } from '../../../lib/backplane/redis/membership/round.ts'

const numbers = (count: number): string[] => Array.from({ length: count }, (_, n) => `${n}`)

t.test('a round has each item once, in as many parts as it should have, of no fewer and no more items than a part may have', async t => {
  const sizesOf = { 0: [0], 3: [3], 8: [5, 3], 20: [5, 5, 5, 5], 23: [6, 6, 6, 5], 50: [10, 10, 10, 10, 10] }
  for (const [count, sizes] of Object.entries(sizesOf)) {
    const round = new Round(() => numbers(Number(count)), { parts: 4, least: 5, most: 10 })
    for (let rounds = 0; rounds < 2; rounds++) {
      const parts = sizes.map(() => round.next())
      t.strictSame(parts.map(({ length }) => length), sizes, `${count} items`)
      t.strictSame(parts.flat(), numbers(Number(count)))
    }
  }
})

t.test('a round has the items that are there when it begins', async t => {
  let count = 6
  const round = new Round(() => numbers(count), { parts: 2, least: 1, most: 10 })
  t.strictSame(round.next(), ['0', '1', '2'])
  count = 8
  t.strictSame(round.next(), ['3', '4', '5'])
  t.strictSame(round.next(), ['0', '1', '2', '3'])
})

t.test('the others are all that the last part did not have, and new ones', async t => {
  let count = 9
  const round = new Round(() => numbers(count), { parts: 3, least: 1, most: 10 })
  round.next()
  t.strictSame(round.next(), ['3', '4', '5'])
  count = 10
  t.strictSame(round.others(), ['6', '7', '8', '0', '1', '2', '9'])
  t.strictSame(round.next(), ['0', '1', '2', '3'], 'then another round begins')
})

t.test('of more others than a part may have, those that are left have their turn next', async t => {
  const round = new Round(() => numbers(12), { parts: 4, least: 1, most: 5 })
  t.strictSame(round.next(), ['0', '1', '2'])
  t.strictSame(round.others(), ['3', '4', '5', '6', '7'])
  t.strictSame(round.next(), ['8', '9', '10'])
  t.strictSame(round.others(), ['11', '0', '1', '2', '3'])
  t.strictSame(round.next(), ['4', '5', '6'])
})
