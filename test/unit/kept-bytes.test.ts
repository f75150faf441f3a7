import t from 'tap'
import { memoryCluster } from '../../lib/backplane/memory/index.ts'
import { logStart } from '../../lib/backplane/position.ts'
import { LogCache } from '../../lib/delivery/log-cache.ts'
import { copyToKeep } from '../../lib/kept-bytes.ts'
import { messageEnvelope } from '../helpers/envelopes.ts'
import { EmptyInstance } from '../helpers/local-instance.ts'

const isAlone = (bytes: Uint8Array): boolean => bytes.buffer.byteLength === bytes.length

t.test('a copy to keep shares its memory with nothing, and does not change with what it is a copy of', t => {
  const bytes = Buffer.from('hello')
  const copy = copyToKeep(bytes)
  bytes.fill(0)
  t.equal(copy.toString(), 'hello')
  t.ok(isAlone(copy))
  t.notOk(isAlone(Buffer.from('hello')), 'others share theirs')
  t.equal(copyToKeep(new Uint8Array(0)).length, 0)
  t.end()
})

t.test('small messages in a log of this process, and in the cache of logs, keep no more memory than they have', async t => {
  const backplane = memoryCluster().backplane()
  await backplane.start(new EmptyInstance())
  t.teardown(async () => await backplane.close())
  const log = { maxMessages: 10, maxBytes: 1_000, ttlMs: 60_000 }
  await backplane.append([{ group: 'g', log }], messageEnvelope(Buffer.from('small')))
  const [kept] = (await backplane.history('g', logStart, 10)).messages
  t.ok(kept !== undefined && isAlone(kept.payload))

  const cache = new LogCache()
  cache.enable()
  const position = { epoch: 'e'.repeat(8), offset: 1, nonce: 1 }
  cache.push({ ...messageEnvelope(Buffer.from('small'), { target: { kind: 'group', name: 'g' } }), position })
  const cached = cache.after('g', logStart, position)?.messages[0]
  t.ok(cached !== undefined && isAlone(cached.payload))
})
