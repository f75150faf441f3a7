import t from 'tap'
import type { Report } from './events.ts'
import { Oracle } from './oracle.ts'

const life = 'one'
const stored = (offset: number, nonce: number): Report => ['stored', 0, 'e', offset, nonce, `p/0/${nonce}`, false]
const got = (offset: number, nonce: number): Report => ['got', 0, 'e', offset, nonce, `p/0/${nonce}`]

/** A log of five messages whose third to fifth a failover lost, and which went on by `fresh` others before the reader was back. */
function judge (keep: number, fresh: number, told: number): string[] {
  const oracle = new Oracle(() => keep)
  const report = (...reports: readonly Report[]): void => { for (const one of reports) oracle.report(life, one) }
  report(['open', 0, '', 0, 0])
  for (let n = 1; n <= 5; n++) report(stored(n, n), got(n, n))
  oracle.dataLost([life], [0])
  for (let n = 3; n < 3 + fresh; n++) report(stored(n, 100 + n))
  report(['gap', 0, 'rewound', 'e', told, 100 + told])
  for (let n = told + 1; n < 3 + fresh; n++) report(got(n, 100 + n))
  oracle.finish([life])
  return oracle.violations
}

t.test('what was trimmed on the new branch before the reader was back is told by the one gap', t => {
  t.strictSame(judge(10, 4, 2), [], 'from the fork on nothing is missing')
  t.strictSame(judge(4, 10, 8), [], 'the log begins at 9')
  const wrong = judge(10, 4, 4)
  t.equal(wrong.length, 2, 'the log still had 3 and 4')
  t.match(wrong, [/never got/, /never got/])
  t.match(judge(4, 10, 10), [/never got/, /never got/], 'and here 9 and 10')
  t.end()
})

t.test('a message that is stored again after a loss of data may be passed over, and not be given twice', t => {
  for (const [kind, violations] of [['repeated', 0], ['got', 1]] as const) {
    const oracle = new Oracle(() => 10)
    for (const one of [['open', 0, '', 0, 0], stored(1, 1), got(1, 1)] as const) oracle.report(life, one as Report)
    oracle.dataLost([life], [0])
    oracle.report(life, ['gap', 0, 'epoch', 'f', 0, 0])
    oracle.report(life, [kind, 0, 'f', 1, 1, 'p/0/1'])
    oracle.finish([life])
    t.equal(oracle.violations.length, violations)
  }
  const oracle = new Oracle(() => 10)
  oracle.report(life, ['open', 0, '', 0, 0])
  oracle.report(life, ['repeated', 0, 'f', 1, 1, 'p/0/1'])
  t.match(oracle.violations, [/passed it over/])
  t.end()
})
