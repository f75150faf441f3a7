import t from 'tap'
import { GroupLogs } from '../../../lib/options/group-logs.ts'

const standard = { maxMessages: 100, maxBytes: 5_000, ttlMs: 1_000 }
const long = { maxMessages: 500, maxBytes: 9_000, ttlMs: 1_000 }

t.test('exceptions count by name, then by the longest prefix, then the standard', async t => {
  const logs = new GroupLogs({ log: standard, logs: { lobby: false, 'chat:*': long, 'chat:tmp:*': false } })
  t.strictSame(logs.of('den'), standard)
  t.equal(logs.of('lobby'), undefined)
  t.strictSame(logs.of('lobby2'), standard)
  t.strictSame(logs.of('chat:1'), long)
  t.equal(logs.of('chat:tmp:1'), undefined)
  t.strictSame(logs.of('chat:1'), long, 'also when asked again')
})

t.test('a function chooses; undefined is the standard', async t => {
  const logs = new GroupLogs({ log: false, logs: group => group === 'a' ? long : group === 'b' ? false : undefined })
  t.strictSame(['a', 'b', 'c'].map(group => logs.of(group)), [long, undefined, undefined])
})

t.test('an exception that is undefined counts as left out', async t => {
  const logs = new GroupLogs({ log: standard, logs: { lobby: undefined as unknown as false, 'chat:*': undefined as unknown as false } })
  t.strictSame([logs.of('lobby'), logs.of('chat:1')], [standard, standard])
})

t.test('what a function returns is checked like the option', async t => {
  const answers: Record<string, unknown> = {
    short: { maxMessages: 10 },
    text: { maxMessages: '10', ttlMs: 1_000 },
    more: { maxMessages: 10, ttlMs: 1_000, size: 1 },
    null: null,
    true: true,
    later: Promise.resolve(false),
    failed: Promise.reject(new Error('no settings'))
  }
  const logs = new GroupLogs({ log: standard, logs: group => answers[group] as false })
  const refused = { code: 'WSG_OPTION_INVALID' }
  for (const group of Object.keys(answers)) {
    t.throws(() => logs.of(group), refused, group)
    t.throws(() => logs.of(group), refused, `${group} again`)
    t.equal(logs.has(group), true, 'whoever only asks whether there is a log gets no error')
  }
  t.throws(() => logs.of('short'), { message: /what logs\('short'\) returns\.ttlMs must be .*, got undefined/ })
  t.throws(() => logs.of('later'), { message: /must be false or .*, got an object of class Promise/ })
  t.strictSame(logs.of('other'), standard)
  t.equal(logs.has('other'), true)
})

t.test('a function that throws is named as the cause', async t => {
  const cause = new TypeError('group is no room')
  const logs = new GroupLogs({ log: standard, logs: () => { throw cause } })
  t.throws(() => logs.of('a'), { code: 'WSG_OPTION_INVALID', message: /logs\('a'\) threw: group is no room/, cause })
  t.equal(logs.has('a'), true)
})

t.test('without maxBytes a log keeps a mebibyte', async t => {
  const short = { maxMessages: 10, ttlMs: 1_000 }
  const whole = { ...short, maxBytes: 1_048_576 }
  const byName = new GroupLogs({ log: short, logs: { lobby: { maxMessages: 20, maxBytes: undefined, ttlMs: 1_000 }, 'chat:*': short } })
  t.strictSame([byName.of('den'), byName.of('lobby'), byName.of('chat:1')], [whole, { ...whole, maxMessages: 20 }, whole])
  const chosen = new GroupLogs({ log: false, logs: () => short })
  t.strictSame(chosen.of('den'), whole)
  t.equal(chosen.of('den'), chosen.of('lobby'), 'made once for each object that the function returns')
})
