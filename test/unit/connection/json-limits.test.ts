import t from 'tap'
import { extraMessages } from '../../../lib/connection/inbound/json-limits.ts'

const measure = (text: string): number | undefined => extraMessages(Buffer.from(text))
const nested = (depth: number): string => `${'['.repeat(depth)}"${' '.repeat(2_000)}"${']'.repeat(depth)}`

t.test('ordinary text counts for one message, whatever its strings hold', async t => {
  for (const text of ['{}', '[[[[', JSON.stringify({ data: 'x'.repeat(1_000_000) }), JSON.stringify({ data: '[{,:}]'.repeat(100_000) })]) {
    t.equal(measure(text), 0)
  }
  const json = JSON.stringify({ data: JSON.stringify({ a: ['"', '\\', '[,'.repeat(50_000)] }) })
  t.equal(measure(json), 0, 'JSON inside a string, with escapes')
})

t.test('each 20 values and names count for a message', async t => {
  t.equal(measure(JSON.stringify(Array.from({ length: 10_000 }, () => 1))), 500)
  t.equal(measure(JSON.stringify(Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`name ${i}`, i])))), 100)
})

t.test('what takes long to parse is not parsed', async t => {
  t.equal(measure(nested(100)), 5)
  const long = [
    nested(101), '['.repeat(200_000), `[${'[],'.repeat(10_000)}1]`, `{${'"a":1,'.repeat(10_001)}"b":1}`, `[${','.repeat(20_000)}`
  ]
  for (const text of long) t.equal(measure(text), undefined)
})

t.test('what is no JSON is measured as well', async t => {
  for (const text of [`"${'x'.repeat(2_000)}`, `"${'\\'.repeat(2_001)}`, `${']'.repeat(2_000)}`]) t.equal(measure(text), 0)
})
