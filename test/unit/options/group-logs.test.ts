import t from 'tap'
import { GroupLogs } from '../../../lib/options/group-logs.ts'

const standard = { maxMessages: 100, ttlMs: 1_000 }
const long = { maxMessages: 500, ttlMs: 1_000 }

t.test('exceptions count by name, then by the longest prefix, then the standard', async t => {
  const logs = new GroupLogs({ log: standard, logs: { lobby: false, 'chat:*': long, 'chat:tmp:*': false } })
  t.equal(logs.of('den'), standard)
  t.equal(logs.of('lobby'), undefined)
  t.equal(logs.of('lobby2'), standard)
  t.equal(logs.of('chat:1'), long)
  t.equal(logs.of('chat:tmp:1'), undefined)
  t.equal(logs.of('chat:1'), long, 'also when asked again')
})

t.test('a function chooses; undefined is the standard', async t => {
  const logs = new GroupLogs({ log: false, logs: group => group === 'a' ? long : group === 'b' ? false : undefined })
  t.strictSame(['a', 'b', 'c'].map(group => logs.of(group)), [long, undefined, undefined])
})
