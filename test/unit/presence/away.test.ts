import t, { type Test } from 'tap'
import { AwayMembers } from '../../../lib/presence/away.ts'
import type { PresentMember } from '../../../lib/presence/roster.ts'

const graceMs = 10_000

interface Away {
  readonly away: AwayMembers
  /** The sessions that were given up so far. */
  readonly gone: string[]
  /** Lets so many milliseconds go by. */
  pass (ms: number): void
}

/** Members who are away, on a clock that goes only when the test says so. */
function make (t: Test): Away {
  let now = 0
  let timer: { readonly run: () => void, readonly at: number } | undefined
  const gone: string[] = []
  const away = new AwayMembers(graceMs, groups => {
    for (const members of groups.values()) gone.push(...members.map(({ session }) => session))
  }, {
    now: () => now,
    start (run, ms) {
      const started = timer = { run, at: now + ms }
      return () => { if (timer === started) timer = undefined }
    }
  })
  t.teardown(() => away.close())
  return {
    away,
    gone,
    pass (ms) {
      now += ms
      while (timer !== undefined && timer.at <= now) {
        const { run } = timer
        timer = undefined
        run()
      }
    }
  }
}

const member = (session: string): PresentMember => ({ connectionId: session, session, userId: undefined, info: undefined, joinedAt: 0 })

t.test('members who do not come back are given up when the grace is over, each in its own time', async t => {
  const { away, gone, pass } = make(t)
  away.add('lobby', member('ann'))
  pass(4_000)
  away.add('lobby', member('bob'))
  away.add('news', member('bob'))
  pass(5_999)
  t.strictSame(gone, [])
  t.strictSame(away.of('lobby').map(({ session }) => session), ['ann', 'bob'])
  pass(2)
  t.strictSame(gone, ['ann'])
  t.strictSame(away.of('lobby').map(({ session }) => session), ['bob'])
  pass(4_000)
  t.strictSame(gone, ['ann', 'bob', 'bob'])
  t.equal(away.size, 0)
})

t.test('a member who is back, or gone for good, is not given up', async t => {
  const { away, gone, pass } = make(t)
  away.add('lobby', member('ann'))
  t.equal(away.remove('lobby', 'ann'), true)
  t.equal(away.remove('lobby', 'ann'), false, 'not away any more')
  pass(2 * graceMs)
  t.strictSame(gone, [])
})

t.test('the grace begins anew for a member who breaks again', async t => {
  const { away, gone, pass } = make(t)
  away.add('lobby', member('ann'))
  pass(9_000)
  away.add('lobby', member('ann'))
  pass(9_000)
  t.strictSame(gone, [])
  pass(1_001)
  t.strictSame(gone, ['ann'])
})

t.test('when too many are away, those that are away the longest are given up early', async t => {
  const { away, gone, pass } = make(t)
  for (let n = 0; n < 100_002; n++) away.add('lobby', member(`s${n}`))
  pass(0)
  t.strictSame(gone, ['s0', 's1'])
  t.equal(away.size, 100_000)
})

t.test('nobody is given up after close', async t => {
  const { away, gone, pass } = make(t)
  away.add('lobby', member('ann'))
  away.close()
  pass(2 * graceMs)
  t.strictSame([gone, away.size], [[], 0])
})
