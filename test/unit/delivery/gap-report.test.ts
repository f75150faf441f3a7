import t from 'tap'
import { mock } from 'node:test'
import { GapReport } from '../../../lib/delivery/gap-report.ts'
import { recordedLog } from '../../helpers/loggers.ts'

t.test('losses that come together are one line, with the number of connections', t => {
  const { log, lines } = recordedLog()
  const report = new GapReport(log)
  report.flush()
  t.strictSame(lines, [], 'nothing to tell')
  for (let n = 0; n < 3_000; n++) report.add(`g${n % 10}`, n % 3 === 0 ? 'epoch' : 'trimmed')
  report.flush()
  const line = { event: 'messages_lost', msg: 'connections of this instance lost messages of their groups' }
  t.strictSame(lines, [{ connections: 3_000, reasons: { epoch: 1_000, trimmed: 2_000 }, groups: ['g0', 'g1', 'g2', 'g3', 'g4'], ...line }])
  report.flush()
  t.equal(lines.length, 1)
  report.add('other', 'unavailable')
  report.flush()
  t.strictSame(lines[1], { connections: 1, reasons: { unavailable: 1 }, groups: ['other'], ...line })
  t.end()
})

t.test('a line is written soon after the first loss, the next one not before ten seconds', t => {
  const { log, lines } = recordedLog()
  const { timers } = mock
  timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => timers.reset())
  let now = 0
  const advance = (ms: number): void => {
    now += ms
    timers.tick(ms)
  }
  const report = new GapReport(log, () => now)
  report.add('g', 'epoch')
  advance(1_000)
  t.equal(lines.length, 1)
  report.add('g', 'epoch')
  advance(9_000)
  t.equal(lines.length, 1)
  advance(1_001)
  t.equal(lines.length, 2)
  t.end()
})
