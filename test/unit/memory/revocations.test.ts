import t from 'tap'
import { MemoryRevocations } from '../../../lib/backplane/memory/revocations.ts'

const dayMs = 86_400_000
const position = { epoch: 'abc', offset: 5, nonce: 7 }

t.test('remembers who was put out until the time is over', async t => {
  let now = 0
  const revocations = new MemoryRevocations(() => now)
  revocations.set('room', ['u:ann'], { at: 10, position }, dayMs)
  revocations.set('room', ['u:ann', 's:1'], { at: 20 }, dayMs)
  t.strictSame(revocations.latest('room', ['u:ann', 's:2']), { at: 20, position: undefined })
  t.equal(revocations.latest('room', ['u:bob']), undefined)
  t.equal(revocations.latest('other', ['u:ann']), undefined)
  now = dayMs
  t.equal(revocations.latest('room', ['u:ann']), undefined)
})

t.test('is bounded in bytes, and those for whom there is no room stay put out together', async t => {
  let now = 0
  const revocations = new MemoryRevocations(() => now, 100_000)
  const names = Array.from({ length: 1_000 }, (_, n) => `u:user-${n}`)
  for (const [n, name] of names.entries()) revocations.set('room', [name], { at: n, position }, dayMs)
  t.strictSame(revocations.latest('room', ['u:user-999']), { at: 999, position })
  const [first, somebodyElse] = [revocations.latest('room', ['u:user-0']), revocations.latest('elsewhere', ['u:new'])]
  t.ok(first !== undefined && first.at > 700 && first.at < 999, 'it shares the mark of the latest that was dropped')
  t.strictSame(somebodyElse, first, 'which others share: they lose a resume, and gain nothing')
  t.equal(first?.position, undefined)
  now = dayMs
  t.equal(revocations.latest('room', ['u:user-0']), undefined)
})
