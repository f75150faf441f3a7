import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Backplane, Envelope, LoggedEnvelope, LogPage, LogPosition } from '../../../lib/backplane/backplane.ts'
import { formatPosition, logStart } from '../../../lib/backplane/position.ts'
import { decode, encode } from '../../../lib/backplane/redis/envelope.ts'
import { Backlog } from '../../../lib/delivery/backlog.ts'
import { LogCache } from '../../../lib/delivery/log-cache.ts'
import { defaultLog, GroupLogs } from '../../../lib/options/group-logs.ts'
import { messageEnvelope } from '../../helpers/envelopes.ts'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void
const heapBytes = async (): Promise<number> => {
  // Buffers of earlier garbage are given back beside the program, some time later.
  for (let round = 0; round < 3; round++) {
    collectGarbage()
    await sleep(10)
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

const at = (offset: number): LogPosition => ({ epoch: 'e'.repeat(8), offset, nonce: offset })

function message (group: string, offset: number, payload: Buffer): LoggedEnvelope {
  return { ...messageEnvelope(payload, { sequence: offset, target: { kind: 'group', name: group } }), position: at(offset) }
}

t.test('the groups that were quiet for the longest time make room, also where all messages are empty', async t => {
  const cache = new LogCache()
  cache.enable()
  let added = 0
  while (cache.stats().recentGroups === added && added < 200_000) cache.push(message(`g${added++}`, 1, Buffer.alloc(0)))
  t.equal(cache.stats().recentGroups, added - 1)
  t.ok((cache.stats().recentBytes ?? 0) <= 33_554_432)
  t.equal(cache.after('g0', logStart, at(1)), undefined)
  t.equal(cache.after('g1', logStart, at(1))?.messages.length, 1)
})

t.test('a group that gets messages stays, and only its latest messages do', async t => {
  const cache = new LogCache()
  cache.enable()
  const payload = Buffer.alloc(60_000)
  for (let offset = 1; offset <= 1_000; offset++) {
    cache.push(message('busy', offset, payload))
    cache.push(message(`quiet ${offset}`, 1, payload))
  }
  t.strictSame(cache.after('busy', at(998), at(1_000))?.messages.map(({ position }) => position.offset), [999, 1_000])
  t.equal(cache.after('busy', at(900), at(1_000)), undefined)
  t.equal(cache.after('quiet 1', logStart, at(1)), undefined)
  t.equal(cache.after('quiet 1000', logStart, at(1))?.messages.length, 1)
})

t.test('nothing is kept before the first client turns up that could resume', async t => {
  const cache = new LogCache()
  cache.push(message('g', 1, Buffer.from('x')))
  cache.fill('g', logStart, [message('g', 1, Buffer.from('x'))], true)
  t.strictSame(cache.stats(), { recentGroups: 0, recentBytes: 0 })
})

t.test('a backplane that has the logs in this process is asked, and nothing is kept a second time', async t => {
  for (const localHistory of [true, false]) {
    const cache = new LogCache()
    const log = [1, 2, 3].map(offset => message('g', offset, Buffer.from('x')))
    let reads = 0
    const backplane = {
      localHistory,
      position: () => at(3),
      async history (_group: string, since: LogPosition): Promise<LogPage> {
        reads++
        return { gap: undefined, messages: log.slice(since.offset), before: since, end: at(3), more: false }
      }
    } as unknown as Backplane
    const backlog = new Backlog(backplane, cache, new GroupLogs({ log: defaultLog, logs: undefined }), { resumesRefused: 0 })
    for (let n = 0; n < 3; n++) {
      const { recovered, messages } = await backlog.replay('g', { since: formatPosition(at(1)) })
      t.strictSame([recovered, messages.map(({ position }) => position.offset)], [true, [2, 3]])
    }
    t.equal(reads, localHistory ? 3 : 1)
    t.equal(cache.stats().recentGroups, localHistory ? 0 : 1)
  }
})

t.test('what the cache counts is no less than the memory that it takes, however small messages are and whatever they carry', async t => {
  const groups = Array.from({ length: 20 }, (_, n) => `room ${n}`)
  const carried: Readonly<Record<string, (n: number) => Partial<Envelope>>> = {
    nothing: () => ({}),
    names: n => ({ conflationKey: `${n}${'k'.repeat(200)}`, target: { kind: 'group', name: `${n % 500}${'g'.repeat(200)}` } }),
    sender: n => ({ from: { userId: `${n}${'u'.repeat(100)}`, connectionId: `instance12.${n}` } }),
    'ids that do not get it': n => ({ except: groups.map((_, k) => `instance12.${n}-${k}`) }),
    audience: n => ({ audience: { exceptUsers: groups.map(group => group + n), tags: groups } }),
    places: n => ({ places: groups.map(group => ({ group: group + n, epoch: 'e'.repeat(8), offset: 1 })) })
  }
  for (const [what, more] of Object.entries(carried)) {
    for (const way of ['push', 'fill'] as const) {
      const cache = new LogCache()
      cache.enable()
      const before = await heapBytes()
      for (let n = 0; n < 5_000; n++) {
        const sent = { ...message(`room ${n % 500}`, 1, Buffer.from('x')), ...more(n) }
        const target = { kind: 'group', name: `${n} ${sent.target.name}`.slice(0, 255) } as const
        // As Redis delivers it: every text is a new one.
        const envelope = { ...sent, ...decode(encode(sent, target)), position: at(1), places: sent.places }
        if (way === 'push') cache.push(envelope)
        else cache.fill(target.name, logStart, [envelope], true)
      }
      const taken = await heapBytes() - before
      const { recentBytes = 0 } = cache.stats()
      t.ok(taken <= recentBytes, `${what}, ${way}: ${taken} of ${recentBytes}`)
      t.ok(recentBytes < 4 * taken, `${what}, ${way}: not far more either`)
    }
  }
})
