import t from 'tap'
import { connectionLog, instanceLog, oncePerMinute } from '../../lib/logging.ts'
import { recordedLog } from '../helpers/loggers.ts'

t.test('lines say which instance and which connection they are about', async t => {
  const { log, lines } = recordedLog()
  instanceLog(log, 'i1', 'blue').warn({}, 'one')
  instanceLog(log, 'i2', undefined).warn({}, 'two')
  connectionLog(log, 'i1.1').warn({}, 'three')
  t.strictSame(
    lines,
    [{ instanceId: 'i1', instanceLabel: 'blue', msg: 'one' }, { instanceId: 'i2', msg: 'two' }, { connectionId: 'i1.1', msg: 'three' }]
  )
})

t.test('a warning that a peer can cause is written once a minute, with how often it happened', async t => {
  const { log, lines } = recordedLog()
  let now = 0
  const warn = oncePerMinute(log, 'bad envelope', () => now)
  warn({ bytes: 1 })
  warn({ bytes: 2 })
  now = 59_999
  warn()
  now = 60_000
  warn({ bytes: 4 })
  t.strictSame(lines, [{ bytes: 1, suppressed: 0, msg: 'bad envelope' }, { bytes: 4, suppressed: 2, msg: 'bad envelope' }])
})
