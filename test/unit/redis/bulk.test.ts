import t from 'tap'
import { BulkReads } from '../../../lib/backplane/redis/link/bulk.ts'
import { deferred, type Deferred } from '../../../lib/deadline.ts'

interface Answer { readonly bytes: number, readonly full: boolean }
interface Read { readonly name: string, readonly bytes: number, readonly answer: Deferred<Answer> }

const settled = async (): Promise<void> => await new Promise(resolve => setImmediate(resolve))

/** Reads whose answers come when the test says so, by a clock of the test. */
function setUp () {
  let now = 0
  const bulk = new BulkReads(() => now)
  const running: Read[] = []
  const read = async (name: string, alone = false): Promise<Answer> => await bulk.read(async bytes => {
    const answer = deferred<Answer>()
    running.push({ name, bytes, answer })
    return await answer.promise
  }, answer => answer, alone)
  return {
    bulk,
    running,
    read,
    pass (ms: number): void { now += ms },
    /** Answers the read that was sent first. */
    async answer (bytes: number, { full = false, afterMs = 1 } = {}): Promise<void> {
      now += afterMs
      running.shift()?.answer.resolve({ bytes, full })
      await settled()
    }
  }
}

t.test('reads go in their order, and together may bring no more than 256 KiB', async t => {
  const { running, read, answer, bulk } = setUp()
  const reads = Array.from({ length: 200 }, async (_, n) => await read(String(n)))
  await settled()
  let most = 0
  for (let n = 0; n < 200; n++) {
    t.equal(running[0]?.name, String(n))
    most = Math.max(most, running.length)
    t.ok(running.reduce((sum, { bytes }) => sum + bytes, 0) <= 2 * 262_144, 'at the moment when more are let in, too')
    await answer(100)
  }
  await Promise.all(reads)
  t.ok(most >= 32, 'many small answers are under way together')
  t.strictSame(bulk.stats(), { bulkReads: 200, bulkBytes: 20_000, bulkReadsWaiting: 0, bulkReadsFailed: 0 })
})

t.test('answers that fill their share leave room for two', async t => {
  const { running, read, answer } = setUp()
  const reads = Array.from({ length: 20 }, async (_, n) => await read(String(n)))
  await settled()
  for (let n = 0; n < 10; n++) await answer(65_536, { full: true })
  t.equal(running.length, 2)
  while (running.length > 0) await answer(100)
  await Promise.all(reads)
})

t.test('what may be larger than a share goes alone, and those behind it wait', async t => {
  const { running, read, answer } = setUp()
  const reads = [read('a'), read('large', true), read('b')]
  await settled()
  t.strictSame(running.map(({ name }) => name), ['a'])
  await answer(10)
  t.strictSame(running.map(({ name }) => name), ['large'])
  await answer(1_000_000)
  t.strictSame(running.map(({ name }) => name), ['b'])
  await answer(10)
  await Promise.all(reads)
})

t.test('on a slow link less is under way, and more again when it is quick', async t => {
  const { running, read, answer } = setUp()
  const shareAfter = async (rounds: number, afterMs: number): Promise<number> => {
    let share = 0
    for (let n = 0; n < rounds; n++) {
      const reading = read('page')
      await settled()
      share = running[0]?.bytes ?? 0
      await answer(share, { full: true, afterMs })
      await reading
    }
    return share
  }
  const quick = await shareAfter(10, 1)
  t.equal(quick, 131_072)
  t.equal(await shareAfter(20, 300), 4_096)
  t.equal(await shareAfter(20, 1), quick)
})

t.test('on a link that brings answers slowly each takes four milliseconds, and a busy Redis is no slow link', async t => {
  const { bulk, running, read, answer, pass } = setUp()
  /** Answers reads that fill their shares: Redis is busy first, then each piece of 1,000 bytes takes `pieceMs`. */
  const sharesOf = async (count: number, pieceMs: number, busyMs: number): Promise<number[]> => {
    const shares: number[] = []
    for (let n = 0; n < count; n++) {
      const reading = read('page')
      await settled()
      const share = running[0]?.bytes ?? 0
      shares.push(share)
      pass(busyMs)
      for (let bytes = 0; bytes < share; bytes += 1_000) {
        pass(pieceMs)
        bulk.rate.received(1_000)
      }
      await answer(share, { full: true, afterMs: 0 })
      await reading
    }
    return shares
  }
  t.equal((await sharesOf(20, 0.001, 8)).at(-1), 131_072)
  const slow = (await sharesOf(500, 0.8, 1)).slice(-400).map(share => Math.round(share / 10) * 10)
  t.strictSame(slow.filter(share => share !== 5_000), [32_770, 32_770], 'but for one a second, as a trial')
  t.ok((await sharesOf(500, 0.001, 1)).slice(-100).every(share => share === 131_072), 'the link is quick again')
})

t.test('a read that fails lets the next one in, with half of the bytes', async t => {
  const { running, read, answer, bulk } = setUp()
  const failing = read('a', true)
  await settled()
  const next = read('b', true)
  running.shift()?.answer.reject(new Error('too late'))
  await t.rejects(failing, { message: 'too late' })
  await settled()
  t.strictSame(running.map(({ name, bytes }) => [name, bytes]), [['b', 131_072]])
  await answer(1)
  await next
  t.equal(bulk.stats().bulkReadsFailed, 1)
})
