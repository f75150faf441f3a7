import t from 'tap'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { LogOpening } from '../../lib/backplane/redis/log/opening.ts'
import { logStart } from '../../lib/backplane/position.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { readersRig } from './log-rig.ts'

noUnhandled(t)
const redis = await startRedis(t)
const keys = new Keys('wsg:')
t.beforeEach(async () => { await redis.admin.flushall() })

/** The log's keys as they are now, to be put back later: what a failover to a lagging replica does. */
async function snapshot (): Promise<() => Promise<void>> {
  const names = [keys.logMeta('log'), keys.log('log')]
  const dumps = await Promise.all(names.map(async name => await redis.admin.dumpBuffer(name)))
  return async () => {
    await redis.admin.del(...names)
    for (const [index, name] of names.entries()) {
      const dump = dumps[index]
      if (dump) await redis.admin.restore(name, 0, dump)
    }
  }
}

t.test('a group whose log could not be read at first starts at its end later, not at its beginning', async t => {
  const { readers, link, events, append } = readersRig(redis)
  await append('before the join')
  link.up = false
  void readers.subscribed(['log'])
  await t.rejects(readers.open('log'), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
  t.match(readers.problem, /1 groups/)
  link.up = true
  readers.resume()
  await until(() => readers.position('log') !== undefined && readers.problem === undefined)
  await append('swallowed')
  await readers.sweep()
  await until(() => events.length > 0)
  t.same(events, ['swallowed'])
})

t.test('a group whose end becomes known by a join or a message, after it could not be read, is in step', async t => {
  for (const how of ['join', 'message']) {
    const { readers, link, append, live } = readersRig(redis)
    const message = await append('before the join')
    link.up = false
    void readers.subscribed(['log'])
    await until(() => readers.problem !== undefined)
    if (how === 'message') live(message)
    link.up = true
    if (how === 'join') await readers.open('log')
    t.equal(readers.position('log')?.offset, how === 'join' ? 1 : 2)
    await until(() => readers.problem === undefined, { timeoutMs: 5_000, what: 'it to be in step' })
    readers.close()
  }
})

t.test('a group of whose log a page could be read, but not the end, is followed from where the page ended', async t => {
  const { readers, link, events, append } = readersRig(redis)
  await append('on the page')
  const other = readersRig(redis)
  await other.readers.open('log')
  const end = other.readers.position('log') ?? logStart
  const opening = new LogOpening(readers, 60_000, () => true)
  link.up = false
  await opening.read('log', async () => ({ end }))
  await append('after the page')
  link.up = true
  await readers.subscribed(['log'])
  await until(() => events.length > 0)
  t.same(events, ['after the page'])
})

t.test('a group that was subscribed without a caller who waited is followed all the same', async t => {
  const { readers, events, append } = readersRig(redis)
  await append('before')
  void readers.subscribed(['log', 'no log'])
  await until(() => readers.position('log')?.offset === 1)
  t.equal(readers.position('no log'), undefined)
  await append('missed')
  await readers.subscribed(['log'])
  await until(() => events.length > 0)
  t.same(events, ['missed'])
})

t.test('what comes before the subscription or after its end is nobody\'s, and nothing is resumed there', async t => {
  const { readers, events, append, live } = readersRig(redis)
  live(await append('before'))
  t.equal(readers.position('log'), undefined)
  await readers.open('log')
  live(await append('one'))
  readers.forget('log')
  live(await append('late'))
  await append('between')
  void readers.subscribed(['log'])
  await readers.open('log')
  live(await append('two'))
  t.same(events, ['one', 'two'])
  readers.close()
  live(await append('after close'))
  t.same(events, ['one', 'two'])
})

t.test('a probe that finds the group in step does not end a repair that still reads', async t => {
  const { readers, link, events, append, live } = readersRig(redis)
  await readers.open('log')
  live(await append('1'))
  link.holding = true
  await append('2')
  live(await append('3'))                                  // 2 is missing: the repair sees 2 and 3
  await until(() => link.held.length === 1)
  void readers.subscribed(['log'])
  await until(() => link.held.length === 2)
  const four = await append('4')
  live(four)
  link.holding = false
  link.held.pop()?.release()                               // the probe
  await new Promise(resolve => setImmediate(resolve))
  link.release()
  await until(() => readers.problem === undefined)
  live(await append('5'))
  t.same(events, ['1', '2', '3', '4', '5'])
})

t.test('after an outage the logs are probed together, and only those are read that went on', async t => {
  const { readers, link, events, append } = readersRig(redis)
  const groups = Array.from({ length: 50 }, (_, n) => `log ${n}`)
  for (const group of ['log', ...groups]) await readers.open(group)
  link.up = false
  await readers.subscribed(['log', ...groups])             // no probe gets through
  t.match(readers.problem, /51 groups/)
  await append('missed')
  const { calls } = link
  link.up = true
  readers.resume()
  readers.resume()
  await until(() => readers.problem === undefined)
  t.same(events, ['missed'])
  t.ok(link.calls - calls <= 4, `${link.calls - calls} calls`)
})

t.test('a repair that read the log before the subscription was back reads it once more', async t => {
  const { readers, link, events, append, live } = readersRig(redis)
  await readers.open('log')
  await append('1')
  link.holding = true
  live(await append('2'))                                  // 1 is missing
  await until(() => link.held.length === 1)
  await append('3')                                        // the link broke after the log was read
  link.holding = false
  void readers.subscribed(['log'])
  link.release()
  await until(() => readers.problem === undefined)
  t.same(events, ['1', '2', '3'])
})

t.test('a message that waits for a probe and does not follow is not taken for an old one', async t => {
  const { readers, link, events, append, live } = readersRig(redis)
  await readers.open('log')
  for (let n = 1; n <= 150; n++) await append(String(n))
  live(await append('151'), await append('152'))           // a repair of two pages, during which something waits
  await until(() => readers.problem === undefined)
  link.holding = true
  const probed = readers.subscribed(['log'])
  await until(() => link.held.length === 1)
  await append('153')
  live(await append('154'))
  link.holding = false
  link.release()
  await probed
  await until(() => readers.problem === undefined)
  t.same(events, Array.from({ length: 154 }, (_, n) => String(n + 1)))
})

t.test('messages that this version cannot decode are passed over, however many', async t => {
  const { readers, events, append, live } = readersRig(redis)
  await readers.open('log')
  live(await append('1'))
  for (let n = 0; n < 250; n++) await append('from the future', { kind: 99 })
  live(await append('2'))
  await until(() => readers.problem === undefined)
  await append('from the future', { kind: 99 })
  await readers.sweep()
  await until(() => readers.problem === undefined)
  t.equal(readers.position('log')?.offset, 253)
  live(await append('3'))
  t.same(events, ['1', '2', '3'])
})

t.test('what somebody else put into a log is no message and no position: at most a loss that is told, and the log goes on', async t => {
  const log = keys.log('log')
  const damages: Record<string, (bytes: Buffer) => Promise<unknown>> = {
    'before all': async bytes => await redis.admin.lpush(log, bytes),
    'after all': async bytes => await redis.admin.rpush(log, bytes),
    'in place of the next one': async bytes => await redis.admin.lset(log, 1, bytes),
    'in place of a later one': async bytes => await redis.admin.lset(log, 2, bytes),
    'in place of the last one': async bytes => await redis.admin.lset(log, -1, bytes),
    'in place of all': async bytes => {
      for (let index = 0; index < 4; index++) await redis.admin.lset(log, index, bytes)
    }
  }
  for (const [where, damage] of Object.entries(damages)) {
    for (const [what, change] of Object.entries({
      'a few bytes': () => Buffer.from('3d4e556796b048b230de', 'hex'),
      'noise as long as a message': (message: Buffer) => Buffer.alloc(message.length, 0xff),
      'a message with a huge offset': (message: Buffer) => Buffer.from(message).fill(0x7f, 10, 16)
    })) {
      await redis.admin.flushall()
      const { readers, events, append, live } = readersRig(redis)
      await readers.open('log')
      const first = await append('1')
      live(first)
      for (const n of [2, 3, 4]) await append(String(n))
      await damage(change(first))
      await readers.sweep()
      await until(() => readers.problem === undefined, { what: `the log with ${what} ${where} to be read` })
      live(await append('5'))
      await until(() => readers.problem === undefined)
      live(await append('6'))
      await until(() => readers.problem === undefined)
      const messages = events.filter(event => !event.startsWith('gap'))
      t.same(messages, [...new Set(messages)].sort(), `${what} ${where}: nothing twice, all in order`)
      t.equal(messages.at(-1), '6')
      t.ok(messages.length === 6 || events.some(event => event.startsWith('gap')), 'a loss is told')
      readers.close()
    }
  }
})

t.test('more and larger messages may come during a repair than it keeps', async t => {
  for (const { count, text } of [{ count: 2500, text: '' }, { count: 40, text: 'x'.repeat(100_000) }]) {
    await redis.admin.flushall()
    const { readers, link, events, append, live } = readersRig(redis)
    await readers.open('log')
    await append('first', { keep: 5000 })
    link.holding = true
    live(await append('second', { keep: 5000 }))
    await until(() => link.held.length === 1)
    const all: Buffer[] = []
    for (let n = 0; n < count; n++) all.push(await append(`${n} ${text}`, { keep: 5000 }))
    live(...all)
    link.holding = false
    link.release()
    await until(() => readers.problem === undefined)
    t.same(events.map(one => parseInt(one)), [NaN, NaN, ...all.keys()])
    t.same(events.slice(0, 2), ['first', 'second'])
    readers.close()
  }
})

t.test('what a log has dropped is used where it comes late, as long as the log is the same', async t => {
  for (const end of ['all comes', 'one never comes', 'the log is lost'] as const) {
    await redis.admin.flushall()
    const { readers, link, events, append, live } = readersRig(redis)
    await readers.open('log')
    live(await append('0', { keep: 2 }))
    const missed: Buffer[] = []
    for (let n = 1; n <= 6; n++) missed.push(await append(String(n), { keep: 2 }))
    let drain = (): void => {}
    link.previous = new Promise(resolve => { drain = resolve })
    void readers.subscribed(['log'])
    await until(() => link.asked === 1, { what: 'the log to have been read' })
    live(...missed.slice(0, 2))
    await until(() => link.asked === 2, { what: 'the log to have been read again' })
    t.same(events, ['0', '1', '2'])
    t.ok(readers.problem)
    if (end === 'the log is lost') {
      await redis.admin.flushall()
      await append('new')
    }
    live(...missed.slice(end === 'one never comes' ? 3 : 2))
    drain()
    await until(() => readers.problem === undefined)
    t.same(events.slice(3), {
      'all comes': ['3', '4', '5', '6'], 'one never comes': ['gap: trimmed to 5', '5', '6'], 'the log is lost': ['gap: epoch to 0', 'new']
    }[end], end)
    live(await append('next', { keep: 2 }))
    t.equal(events.at(-1), 'next')
    readers.close()
  }
})

t.test('a log that lost its latest messages: one gap, then what follows the fork', async t => {
  const { readers, local, events, append, live } = readersRig(redis)
  await readers.open('log')
  for (const n of [1, 2, 3]) live(await append(String(n)))
  const failover = await snapshot()
  for (const n of [4, 5]) live(await append(String(n)))
  await failover()
  for (const n of [4, 5, 6]) await append(`${n}'`)
  live(await append("7'"))
  await until(() => readers.problem === undefined)
  t.same(events, ['1', '2', '3', '4', '5', 'gap: rewound to 3', "4'", "5'", "6'", "7'"])
  t.equal(local.gaps.length, 1)
  live(await append("8'"))
  t.equal(events.at(-1), "8'")
})

t.test('offsets handed out twice, as many as before: a probe notices by the nonce alone', async t => {
  const { readers, events, append, live } = readersRig(redis)
  await readers.open('log')
  for (const n of [1, 2, 3]) live(await append(String(n)))
  const failover = await snapshot()
  const lost = [await append('4'), await append('5')]
  live(...lost)
  await failover()
  for (const n of [4, 5]) await append(`${n}'`)
  await readers.subscribed(['log'])
  await until(() => readers.problem === undefined)
  live(...lost)                                            // an echo of the old master
  await until(() => readers.problem === undefined)
  live(await append("6'"))
  t.same(events, ['1', '2', '3', '4', '5', 'gap: rewound to 3', "4'", "5'", "6'"])
})

t.test('rewound by many: as far as the latest messages are remembered, what is new is told from what was delivered', async t => {
  const { readers, events, append, live } = readersRig(redis)
  for (let n = 1; n <= 10; n++) await append(String(n))
  const failover = await snapshot()
  await readers.open('log')
  for (let n = 11; n <= 210; n++) live(await append(String(n)))
  await failover()
  for (const n of [11, 12]) await append(`${n}'`)
  await readers.sweep()
  await until(() => readers.problem === undefined)
  t.same(events.slice(200), ['gap: rewound to 10', "11'", "12'"])
})

t.test('rewound with nothing kept in common: what is surely new is delivered, nothing twice', async t => {
  const { readers, events, append, live } = readersRig(redis)
  await append('before the join', { keep: 3 })
  await readers.open('log')
  for (const n of [2, 3, 4]) live(await append(String(n), { keep: 3 }))
  const failover = await snapshot()
  live(await append('5', { keep: 3 }))
  await failover()
  for (const n of [5, 6, 7]) await append(`${n}'`, { keep: 3 })
  live(await append("8'", { keep: 3 }))
  await until(() => readers.problem === undefined)
  // 5' is gone: the log begins at 6', which follows another 5 than ours.
  t.same(events, ['2', '3', '4', '5', 'gap: rewound to 5', "6'", "7'", "8'"])

  await redis.admin.flushall()
  const other = readersRig(redis)
  for (let n = 1; n <= 10; n++) await other.append(String(n))
  const longAgo = await snapshot()
  await other.readers.open('log')
  for (let n = 11; n <= 400; n++) other.live(await other.append(String(n)))
  await longAgo()
  for (const n of [11, 12]) await other.append(`${n}'`)
  await other.readers.sweep()
  await until(() => other.readers.problem === undefined)
  // 11' and 12' have offsets that were delivered before, too long ago to tell whether it was these.
  t.same(other.events.slice(390), ['gap: rewound to 12'])
  other.live(await other.append("13'"))
  t.equal(other.events.at(-1), "13'")
})

t.test('a new epoch in the middle of a repair is one gap, and its stale messages are dropped', async t => {
  const { readers, link, local, events, append, live } = readersRig(redis)
  await readers.open('log')
  const first = await append('old 1')
  for (let n = 2; n < 150; n++) await append(`old ${n}`)
  link.holding = true
  const stale = await append('old 150')
  live(stale)
  await until(() => link.held.length === 1)
  await redis.admin.flushall()
  const fresh = [await append('new 1'), await append('new 2')]
  live(first, ...fresh)
  link.holding = false
  link.release()
  await until(() => readers.problem === undefined)
  live(stale, await append('new 3'))
  await until(() => readers.problem === undefined)
  t.same(local.gaps.map(({ reason }) => reason), ['epoch'])
  t.same(events.slice(0, 100), Array.from({ length: 100 }, (_, n) => `old ${n + 1}`))
  t.same(events.slice(100), ['gap: epoch to 0', 'new 1', 'new 2', 'new 3'])
})

t.test('live messages from the beginning of a log that is lost by now are not taken for the beginning of the next one', async t => {
  const { readers, link, events, append, live } = readersRig(redis)
  await readers.open('log')
  const old = [await append('1'), await append('2')]
  await readers.sweep()
  await until(() => events.length === 2 && readers.problem === undefined)
  await redis.admin.flushall()
  await readers.sweep()
  await until(() => readers.position('log')?.epoch === '' && readers.problem === undefined)
  live(...old)                                             // on a slow link: the log was read and lost before they came
  await until(() => readers.problem === undefined)
  t.same(events, ['1', '2', 'gap: epoch to 0'])

  const next = await append('3')
  live(next)
  link.holding = true
  live(await append('4'), await append('6'))
  await append('7')
  void readers.subscribed(['log'])                         // a repair of what waits already
  await redis.admin.flushall()
  live(next)
  link.holding = false
  link.release()
  await until(() => readers.problem === undefined)
  live(...old, next)
  await until(() => readers.problem === undefined)
  t.same(events.slice(3), ['3', '4', '6', 'gap: epoch to 0'])
  live(await append('5'))
  t.equal(events.at(-1), '5')
})

t.test('a sweep whose answer comes just as a repair ends does not leave the group waiting', async t => {
  for (let microtasks = 0; microtasks < 20; microtasks++) {
    await redis.admin.flushall()
    const { readers, link, events, append, live } = readersRig(redis)
    await readers.open('log')
    live(await append('1'))
    const restore = await snapshot()
    await append('lost')
    link.holding = true
    const sweep = readers.sweep()
    await until(() => link.held.length === 1)
    const late = await append('lost, too')
    await restore()
    live(late)                                             // nothing follows in the log: the repair ends where it began
    await until(() => link.held.length === 2)
    link.holding = false
    link.held[1]?.release()
    for (let n = 0; n < microtasks; n++) await undefined
    link.held[0]?.release()
    await sweep
    await until(() => readers.problem === undefined, { timeoutMs: 5_000, what: `the group to be in step after ${microtasks} microtasks` })
    live(await append('2'))
    t.same(events, ['1', '2'])
    readers.close()
  }
})

t.test('data lost while nothing is published: one gap, and none for a log that was never used', async t => {
  const { readers, local, events, append, live } = readersRig(redis)
  await readers.open('log')
  await readers.open('log unused')
  live(await append('1'))
  await redis.admin.flushall()
  for (let n = 0; n < 3; n++) {
    await readers.subscribed(['log', 'log unused'])
    await readers.sweep()
    await until(() => readers.problem === undefined)
  }
  t.equal(local.gaps.length, 1)
  t.same(readers.position('log'), logStart)
  live(await append('2'))
  t.same(events, ['1', 'gap: epoch to 0', '2'])
})

t.test('a group given up during its repair gets nothing more, subscribed again it starts at the end', async t => {
  const { readers, link, events, append, live, changes } = readersRig(redis)
  await readers.open('log')
  await append('1')
  link.holding = true
  live(await append('2'))
  await until(() => link.held.length === 1)
  readers.forget('log')
  t.equal(readers.problem, undefined)
  t.ok(changes < 3, 'and the state is told')
  void readers.subscribed(['log'])
  const opened = readers.open('log')
  await until(() => link.held.length === 2)
  link.holding = false
  link.release()
  await opened
  live(await append('3'))
  t.same(events, ['3'])
})

t.test('repairs go on after errors and end with close; no timer outlives it', async t => {
  const { readers, link, events, append, live } = readersRig(redis)
  await readers.open('log')
  await append('1')
  link.up = false
  live(await append('2'))
  await until(() => link.calls > 1)
  link.up = true
  await until(() => readers.problem === undefined)         // by its own retry
  t.same(events, ['1', '2'])
  link.up = false
  await append('3')
  live(await append('4'))
  readers.close()
  const { calls } = link
  link.up = true
  readers.resume()
  await readers.sweep()
  t.equal(link.calls, calls)
  t.equal(process.getActiveResourcesInfo().filter(kind => kind === 'Timeout').length, 0)
})

t.test('a group that can never be caught up with does not keep the others waiting', async t => {
  const { readers, link, local, append, live } = readersRig(redis)
  const groups = Array.from({ length: 64 }, (_, n) => `log ${n}`)
  for (const group of ['log', ...groups]) await readers.open(group)
  // Messages of a master that was replaced: they follow nothing in the log we read, and every read finds new ones.
  const stale = await append('stale')
  await redis.admin.flushall()
  let flooding = true
  const flood = (): void => {
    for (const group of groups) {
      const bytes = Buffer.from(stale)
      bytes.writeUIntBE(1_000_000 + link.calls, 10, 6)
      const at = bytes.indexOf('log', 38)
      const renamed = Buffer.concat([bytes.subarray(0, at - 1), Buffer.from([group.length]), Buffer.from(group), bytes.subarray(at + 3)])
      live(renamed)
    }
    if (flooding) setImmediate(flood)
  }
  flood()
  await append('1')
  live(await append('2'))
  await until(() => local.events.length === 2)
  flooding = false
  await until(() => readers.problem === undefined)
  t.same(local.events, ['1', '2'])
})

t.test('the meta of a short log is kept while its group is followed, so that its next message is no false gap', async t => {
  const { readers, append, events, live } = readersRig(redis)
  await append('first')
  await readers.open('log')
  const meta = keys.logMeta('log')
  t.ok(await redis.admin.pttl(meta) < 3_600_000, 'by itself it goes within the hour')
  await redis.admin.del(keys.log('log'))
  await redis.admin.pexpire(meta, 60_000)
  await readers.sweep()
  t.ok(await redis.admin.pttl(meta) > 1_700_000)
  const left = await redis.admin.pttl(meta)
  await readers.sweep()
  t.ok(await redis.admin.pttl(meta) <= left, 'not written again before it is half over')
  live(await append('second'))
  await readers.sweep()
  t.same(events, ['second'])
  t.equal(readers.problem, undefined)
})
