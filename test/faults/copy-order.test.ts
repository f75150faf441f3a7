import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import type { AppendTarget } from '../../lib/backplane/backplane.ts'
import { decode, encodeParts, type StoredEnvelope } from '../../lib/backplane/redis/envelope.ts'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { encodeAppend } from '../../lib/backplane/redis/log/append-call.ts'
import { CopyOrder } from '../../lib/backplane/redis/log/copy-order.ts'
import { LogFollower } from '../../lib/backplane/redis/log/follower.ts'
import { randomNonce } from '../../lib/backplane/redis/log/random.ts'
import { append } from '../../lib/backplane/redis/log/scripts.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { appendQuietly, envelope, readersRig } from './log-rig.ts'

noUnhandled(t)
const redis = await startRedis(t)
const keys = new Keys('wsg:')
t.beforeEach(async () => { await redis.admin.flushall() })

const log = { maxMessages: 100, maxBytes: 1_000_000, ttlMs: 60_000 }
let sequence = 0

/** Appends to all groups in one step, without telling anyone. Returns the copy of each that would have been published. */
async function appendTo (groups: readonly string[], text: string): Promise<Buffer[]> {
  const targets: AppendTarget[] = groups.map(group => ({ group, log }))
  const message = { ...envelope('', text), shared: groups.length > 1 }
  const parts = encodeParts(message, groups.length > 1)
  const { keys: names, args } = encodeAppend(new Keys('wsg:'), {
    publisher: 'publisher1', key: undefined, messages: [{ ...parts, targets, sequence: ++sequence, nonce: randomNonce() }]
  })
  for (const index of groups.keys()) args[6 + 5 * index] = 'nobody is here'
  await redis.admin.eval(append.lua, names.length, ...names, ...args)
  return await Promise.all(groups.map(async group => (await redis.admin.lrangeBuffer(keys.log(group), -1, -1))[0] ?? Buffer.alloc(0)))
}

/** The logs `log a` and `log b`, followed from their beginning; what came is told as `text@group`. */
async function rig () {
  const one = readersRig(redis)
  for (const group of ['log a', 'log b']) await one.readers.open(group)
  return { ...one, seen: () => one.local.received.map(({ payload, target }) => `${payload.toString()}@${target.name.at(-1)}`) }
}

t.test('where the data was lost, too, a copy waits until what is before the other copy was read', async t => {
  for (const groups of [['log a', 'log b'], ['log b', 'log a']]) {
    const { readers, live, seen, local } = await rig()
    for (const group of groups) live((await appendTo([group], 'old'))[0] as Buffer)
    t.equal(seen().length, 2)
    local.received.length = 0
    await redis.admin.flushall()
    for (const group of groups) await appendTo([group], '1')
    await appendTo(groups, 'both')
    for (const group of groups) await appendTo([group], '2')
    await readers.subscribed(groups)
    await until(() => seen().length === 6 && readers.problem === undefined)
    const firstCopy = seen().findIndex(one => one.startsWith('both'))
    t.ok(['1@a', '1@b'].every(one => seen().indexOf(one) < firstCopy), seen().join())
    t.equal(readers.stats().logsHeld, 0)
    readers.close()
    await redis.admin.flushall()
  }
})

t.test('where the data was lost, a copy waits for a log that is not known to be lost yet', async t => {
  for (const known of ['to nobody', 'of the loss before, and is reading'] as const) {
    const { readers, live, seen, link, local } = await rig()
    for (const group of ['log a', 'log b']) live((await appendTo([group], 'old'))[0] as Buffer)
    await redis.admin.flushall()
    let read: (typeof link.held)[number] | undefined
    if (known !== 'to nobody') {
      await appendTo(['log b'], 'lost too')
      link.holding = true
      void readers.subscribed(['log b'])
      await until(() => link.held.length === 1, { what: 'the end of log b' })
      link.release()
      await until(() => link.held.length === 1, { what: 'a read of log b' })
      link.holding = false
      read = link.held.pop()
      await redis.admin.flushall()
    }
    local.received.length = 0
    await appendTo(['log b'], '1')
    await appendTo(['log a', 'log b'], 'both')
    void readers.subscribed(['log a'])
    await until(() => readers.stats().logsHeld === 1 || seen().length > 0)
    read?.release()
    await until(() => seen().includes('both@a') && readers.problem === undefined)
    t.same(seen().filter(one => one !== 'lost too@b' && one !== 'both@b'), ['1@b', 'both@a'], known)
    t.ok(seen().indexOf('both@b') > seen().indexOf('1@b'))
    t.equal(readers.stats().logsHeld, 0)
    readers.close()
    await redis.admin.flushall()
  }
})

t.test('a copy does not wait for a log that is no more', async t => {
  const { readers, live, seen } = await rig()
  await appendTo(['log b'], 'b1')
  const [inA] = await appendTo(['log a', 'log b'], 'both') as [Buffer]
  const [a2] = await appendTo(['log a'], 'a2') as [Buffer]
  await redis.admin.del(keys.log('log b'), keys.logMeta('log b'))
  live((await appendTo(['log b'], 'anew'))[0] as Buffer)
  t.same(seen(), ['anew@b'])
  live(inA, a2)
  await until(() => readers.problem === undefined)
  t.same(seen(), ['anew@b', 'both@a', 'a2@a'])
  readers.close()
})

t.test('a live copy waits until what is before the other copy was repaired', async t => {
  const { readers, live, seen, link } = await rig()
  await appendTo(['log b'], 'b1')
  const [inA, inB] = await appendTo(['log a', 'log b'], 'both') as [Buffer, Buffer]
  const [a2] = await appendTo(['log a'], 'a2') as [Buffer]
  link.holding = true
  live(inA, a2)
  t.same(seen(), [], 'b1 is missing, and members of both are to get it first')
  t.equal(readers.stats().logsHeld, 1)
  t.match(readers.problem, /1 groups/)
  live(inB)
  await until(() => link.held.length > 0, { what: 'the read of log b' })
  link.holding = false
  link.release()
  await until(() => seen().length === 4 && readers.problem === undefined)
  t.same(seen().filter(one => one !== 'both@b'), ['b1@b', 'both@a', 'a2@a'])
  t.ok(seen().indexOf('both@b') > seen().indexOf('b1@b'))
  t.equal(readers.stats().logsHeld, 0)
})

t.test('repairs of several logs meet at each message they have in common', async t => {
  const { readers, seen } = await rig()
  const sent: string[] = []
  for (let n = 0; n < 60; n++) {
    const groups = [['log a'], ['log b'], ['log a', 'log b'], ['log b', 'log a']][n % 4] ?? []
    await appendTo(groups, `${n}`)
    sent.push(...groups.map(group => `${n}@${group.at(-1)}`))
  }
  void readers.subscribed(['log b', 'log a'])
  await until(() => seen().length === sent.length && readers.problem === undefined)
  t.same([...seen()].sort(), [...sent].sort(), 'each copy once')
  // What a member of both gets: the first copy of each.
  const numbers = [...new Set(seen().map(one => Number(one.split('@')[0])))]
  for (const name of ['a', 'b']) {
    const inLog = sent.filter(one => one.endsWith(name)).map(one => Number(one.split('@')[0]))
    t.same(numbers.filter(n => inLog.includes(n)), inLog, `in the order of log ${name}`)
  }
})

t.test('who is held goes on when the other log is given up, and when its messages are lost', async t => {
  for (const end of ['forgotten', 'trimmed'] as const) {
    await redis.admin.flushall()
    const { readers, live, seen, link, events } = await rig()
    await appendTo(['log b'], 'b1')
    const [inA] = await appendTo(['log a', 'log b'], 'both') as [Buffer]
    link.up = false
    live(inA)
    t.same(seen(), [], end)
    link.up = true
    if (end === 'forgotten') {
      readers.forget('log b')
      await until(() => seen().length === 1)
      t.same(seen(), ['both@a'])
    } else {
      await redis.admin.ltrim(keys.log('log b'), 1, 0)
      await appendTo(['log b'], 'b3')
      void readers.subscribed(['log b'])
      await until(() => seen().length === 2)
      t.same([...events].sort(), ['b3', 'both', 'gap: trimmed to 2'])
    }
    readers.close()
  }
})

t.test('messages of a group without a log wait in their order, and not without end', async t => {
  for (const end of ['repaired', 'forgotten', 'too many', 'too large', 'left'] as const) {
    await redis.admin.flushall()
    const { readers, live, seen, link } = await rig()
    await appendTo(['log b'], 'b1')
    const [inB] = await appendTo(['log b', 'log c'], 'both') as [Buffer]
    const volatile = (text: string, more: Partial<StoredEnvelope> = {}): void => {
      readers.volatile.receive({ ...envelope('v', text), ...more })
    }
    link.holding = true
    live(inB)
    volatile('v1')
    t.same(seen(), ['v1@v'], 'nothing before it has to wait')
    volatile('both', { places: decode(inB)?.places })
    volatile('v2')
    readers.volatile.receive(envelope('w', 'w1'))
    t.same(seen(), ['v1@v', 'w1@w'], 'other groups do not wait')
    t.equal(readers.stats().logsHeld, 1)
    const expected = ['both@v', 'v2@v']
    if (end === 'repaired') {
      await until(() => link.held.length > 0, { what: 'the read of log b' })
      link.holding = false
      link.release()
      await until(() => seen().length === 6)
      expected.unshift('b1@b')
    } else if (end === 'forgotten') {
      readers.forget('log b')
      await until(() => seen().length === 4)
    } else if (end === 'too many') {
      for (let n = 3; n <= 1_001; n++) volatile(`v${n}`)
      expected.push(...Array.from({ length: 999 }, (_, n) => `v${n + 3}@v`))
    } else if (end === 'too large') {
      volatile('x'.repeat(262_200))
      expected.push(`${'x'.repeat(262_200)}@v`)
    } else {
      readers.forget('v')
      expected.length = 0
    }
    t.same(seen().slice(2).filter(one => one !== 'both@b'), expected, end)
    t.equal(readers.stats().logsHeld, 0)
    volatile('last')
    t.equal(seen().at(-1), 'last@v', 'nothing waits any more')
    readers.close()
  }
})

t.test('messages of a log that was lost wait for one read of the next log, not until all of that is delivered', async t => {
  const { readers, live, seen, link, local } = await rig()
  const [inB] = await appendTo(['log b', 'log c'], 'of the lost log') as [Buffer]
  live(inB)
  const { places } = decode(inB) as StoredEnvelope
  await redis.admin.flushall()
  for (let n = 1; n <= 900; n++) await appendQuietly(redis.admin, 'log b', `${n}`)
  link.holding = true
  void readers.subscribed(['log b'])
  await until(() => link.held.length === 1, { what: 'the end of the log' })
  link.release()
  await until(() => {
    if (!seen().includes('1@b')) link.release()
    return seen().includes('1@b') && link.held.length === 1
  }, { what: 'the loss to be known, and the next page to be read' })
  local.received.length = 0
  for (const text of ['v1', 'v2', 'v3']) readers.volatile.receive({ ...envelope('v', text), ...places === undefined ? {} : { places } })
  link.release()
  await until(() => link.held.length === 1, { what: 'a read that begins now' })
  t.notOk(seen().includes('v1@v'), 'the read before began before they came')
  link.release()
  await until(() => link.held.length === 1 && seen().includes('v3@v'), { timeoutMs: 5_000, what: 'them, and the next page' })
  t.same(seen().filter(text => text.endsWith('v')), ['v1@v', 'v2@v', 'v3@v'], 'in their order')
  t.ok(readers.problem, 'the log is still being caught up with')
  link.holding = false
  link.release()
  await until(() => readers.problem === undefined && seen().includes('900@b'))
  readers.close()
  await redis.admin.flushall()
})

const place = (group: string, offset: number) => ({ group, epoch: 'epoch-1.', offset })
const about = (...places: ReadonlyArray<ReturnType<typeof place>>) => ({ ...envelope('', ''), places }) as StoredEnvelope

function follower (group: string, offset?: number, epoch = 'epoch-1.'): LogFollower {
  const made = new LogFollower(group)
  if (offset !== undefined) made.seek({ epoch, offset, nonce: 1 })
  return made
}

t.test('only a log that is followed, and may be behind, is waited for', async t => {
  const a = follower('a', 4)
  const others = [
    follower('behind', 5), follower('next', 6), follower('ahead', 9), follower('unknown'), follower('other life', 9, 'epoch-0.')
  ]
  const compared: string[] = []
  const order = new CopyOrder(group => others.find(one => one.group === group), () => {}, ({ group }) => { compared.push(group) })
  t.teardown(() => order.close())
  t.equal(order.mayDeliver(a, { ...envelope('', ''), shared: true }), true, 'a message without places')
  for (const group of ['next', 'ahead', 'unknown', 'not followed', 'a']) {
    t.equal(order.mayDeliver(a, about(place('a', 5), place(group, 7))), true, group)
  }
  t.equal(order.mayDeliver(a, about(place('a', 5), place('behind', 0))), true, 'no copy stands there')
  t.equal(order.held, 0)
  t.equal(order.mayDeliver(a, about(place('a', 5), place('behind', 7))), false)
  t.equal(order.held, 1)
  t.same(compared, [])
  const otherLife = others.at(-1) as LogFollower
  const waits = (offset: number): boolean => !order.mayDeliver(a, about(place('a', offset), place('other life', 7)))
  t.ok(waits(5))
  t.same(compared, ['other life'])
  otherLife.advance({ epoch: 'epoch-0.', offset: 10, nonce: 1 })
  order.moved(otherLife)
  t.equal(order.held, 1, 'it is still in that life')
  order.read(otherLife, performance.now())
  t.equal(order.held, 0)
  t.notOk(waits(5), 'the message is of a log that is no more')
  t.ok(waits(6))
  const beganAt = performance.now()
  order.moved(a)
  t.ok(waits(7))
  order.read(otherLife, beganAt)
  t.ok(waits(7), 'the message came after the read began')
})

t.test('a log is waited for as long as it comes on', async t => {
  const [a, other] = [follower('a', 4), follower('other', 5)]
  let woken = 0
  const order = new CopyOrder(group => group === 'other' ? other : undefined, () => { woken++ }, () => {}, 200)
  t.teardown(() => order.close())
  t.equal(order.mayDeliver(a, about(place('a', 5), place('other', 1_000))), false)
  const startedAt = performance.now()
  for (let offset = 6; performance.now() - startedAt < 1_000; offset++) {
    other.advance({ epoch: 'epoch-1.', offset, nonce: 1 })
    order.moved(other)
    await sleep(1)
  }
  t.equal(woken, 0)
  await until(() => woken === 1, { what: 'the log that stands still to be given up' })
})

t.test('a log that does not come on is waited for once, and again when it did', async t => {
  const [a, other] = [follower('a', 4), follower('other', 5)]
  const woken: string[] = []
  const order = new CopyOrder(group => group === 'other' ? other : undefined, ({ group }) => { woken.push(group) }, () => {}, 20)
  t.teardown(() => order.close())
  t.equal(order.mayDeliver(a, about(place('a', 5), place('other', 8))), false)
  other.advance({ epoch: 'epoch-1.', offset: 6, nonce: 1 })
  order.moved(other)
  t.same(woken, [], 'it is one message short')
  await until(() => woken.length === 1)
  t.equal(order.mayDeliver(a, about(place('a', 5), place('other', 8))), true)
  other.advance({ epoch: 'epoch-1.', offset: 7, nonce: 1 })
  order.moved(other)
  t.equal(order.mayDeliver(a, about(place('a', 6), place('other', 9))), false)
  other.advance({ epoch: 'epoch-1.', offset: 8, nonce: 1 })
  order.moved(other)
  t.same(woken, ['a', 'a'])
  t.equal(order.held, 0)
})
