import t from 'tap'
import { BoundedLog, connectionLog, instanceLog, logEvent, oncePerMinute } from '../../lib/logging.ts'
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

t.test('a line names its event, with the level and the message of the event', async t => {
  const { log, lines } = recordedLog()
  logEvent(log, 'lease_lost', { generation: 2 })
  t.strictSame(lines, [{ event: 'lease_lost', generation: 2, msg: 'this instance was declared dead and registers again' }])
})

t.test('what many parts of an instance have to tell at once is a few lines; another instance has its own', async t => {
  const [one, other] = [recordedLog(), recordedLog()]
  for (let partition = 0; partition < 256; partition++) {
    logEvent(one.log, 'registration_lost', { partition })
    oncePerMinute(one.log, 'lease_not_renewed')({ partition })
  }
  const told = (event: string): number => one.lines.filter(line => line.event === event).length
  t.strictSame([told('registration_lost'), told('lease_not_renewed')], [10, 1])
  oncePerMinute(one.log, 'not_registered')()
  t.equal(told('not_registered'), 1, 'each event has its own allowance')
  logEvent(other.log, 'registration_lost')
  t.equal(other.lines.length, 1)
})

t.test('a line may be written once a minute, with how often it was left out', async t => {
  const { log, lines } = recordedLog()
  let now = 0
  const warn = oncePerMinute(log, 'envelope_unknown', () => now)
  warn({ bytes: 1 })
  warn({ bytes: 2 })
  now = 59_999
  warn()
  now = 60_000
  warn({ bytes: 4 })
  t.match(lines, [{ event: 'envelope_unknown', bytes: 1, suppressed: undefined }, { bytes: 4, suppressed: 2 }])
  t.equal(lines.length, 2)
})

t.test('lines that clients cause come a few at once, then one in a while; each event has its own allowance', async t => {
  const { log, lines } = recordedLog()
  let now = 0
  const bounded = new BoundedLog({ atOnce: 3, everyMs: 1_000 }, () => now)
  for (let i = 0; i < 100; i++) bounded.write(log, 'token_refused', { i })
  t.match(lines, [{ i: 0, suppressed: undefined }, { i: 1 }, { i: 2 }])
  bounded.write(log, 'queue_overflow')
  t.equal(lines.length, 4)
  now = 1_000
  for (let i = 100; i < 200; i++) bounded.write(log, 'token_refused', { i })
  t.match(lines.slice(4), [{ i: 100, suppressed: 97 }])
  now = 3_600_000
  for (let i = 200; i < 300; i++) bounded.write(log, 'token_refused', { i })
  t.match(lines.slice(5), [{ i: 200, suppressed: 99 }, { i: 201 }, { i: 202 }])
  t.equal(lines.length, 8, 'an hour of silence saves up no more than that')
})
