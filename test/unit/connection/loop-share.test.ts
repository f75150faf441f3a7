import t from 'tap'
import { LoopShare } from '../../../lib/connection/inbound/loop-share.ts'

/** Work in parts that take a millisecond each on the clock of the test. */
function rig (): { readonly done: string[], begin (name: string, parts: number): void, readonly idle: () => boolean } {
  let now = 0
  let running = 0
  const done: string[] = []
  const share = new LoopShare(() => now)
  const begin = (name: string, parts: number): void => {
    running++
    let left = parts
    const goOn = (): void => {
      while (left > 0) {
        if (!share.hasTime(goOn)) return
        left--
        now++
        done.push(name)
      }
      running--
    }
    goOn()
  }
  return { done, begin, idle: () => running === 0 }
}

const nextTurn = async (): Promise<void> => await new Promise(resolve => { setImmediate(resolve) })

t.test('floods share the time of a turn, and go on one after another', async t => {
  const { done, begin, idle } = rig()
  for (const name of ['a', 'b', 'c']) begin(name, 12)
  t.equal(done.join(''), 'aaaaa', 'the first one used up this turn')
  let turns = 0
  for (; !idle(); turns++) await nextTurn()
  t.equal(done.join(''), 'aaaaaaaaaabbbbbcccccaabbbcccccbbbbcc')
  t.ok(turns >= 7, `${turns} turns`)
})

t.test('what fits into a turn never waits', async t => {
  const { done, begin } = rig()
  for (let turn = 1; turn <= 5; turn++) {
    begin('a', 2)
    begin('b', 2)
    t.equal(done.length, 4 * turn)
    await nextTurn()
  }
})
