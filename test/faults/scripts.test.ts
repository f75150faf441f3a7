import t from 'tap'
import { randomBytes } from 'node:crypto'
import { decode, encodeParts, positionOf, previousNonce } from '../../lib/backplane/redis/envelope.ts'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import type { Script } from '../../lib/backplane/redis/link/script.ts'
import { append, appendToOne, readEnds } from '../../lib/backplane/redis/log/scripts.ts'
import { encodeAppend, encodeToOne, type AppendBatch, type Draft } from '../../lib/backplane/redis/log/append-call.ts'
import { packSettings } from '../../lib/backplane/redis/log/settings.ts'
import { claimNames } from '../../lib/backplane/redis/claim.ts'
import { setBlock } from '../../lib/backplane/redis/membership/blocks.ts'
import { settleGroups, settleUsers } from '../../lib/backplane/redis/membership/occupancy.ts'
import { revoke } from '../../lib/backplane/redis/membership/revocations.ts'
import { beat, claimDead, markReaped, reap, syncMembers, unregister } from '../../lib/backplane/redis/membership/scripts.ts'
import { storeUsers } from '../../lib/backplane/redis/membership/users.ts'
import { writeStream } from '../../lib/backplane/redis/streams/scripts.ts'
import type { Member } from '../../plugin.ts'
import { Local } from '../helpers/local-instance.ts'
import { startRedis } from '../helpers/redis.ts'
import { envelope as envelopeOf } from './log-rig.ts'

const redis = await startRedis(t)
const keys = new Keys('wsg:')

type Argument = string | number | Buffer

async function run ({ lua }: Script, names: readonly string[], args: readonly Argument[]): Promise<unknown> {
  return await redis.admin.eval(lua, names.length, ...names, ...args)
}

async function everything (): Promise<unknown> {
  const names = (await redis.admin.keys('*')).sort()
  return await Promise.all(names.map(async name => [name, await redis.admin.dumpBuffer(name)]))
}

const id = 'instance01'
const settings = packSettings({ maxMessages: 10, maxBytes: 1_000, ttlMs: 1_000 })
const appendCall = {
  name: 'append',
  script: append,
  keys: [keys.logMeta('g'), keys.log('g'), keys.idempotency('g', 'k')],
  args: [1, 1, 'publisher', 1_000, 0, '', 'c', 'target', settings, randomBytes(8), 1, 'd', 'target', randomBytes(4), 'prefix', 'rest'],
  /** Which of `args`, counted from 1, are numbers. */
  numbers: [1, 2, 4, 5, 11]
}
/** What `appendToOne` is told about its messages: numbers of 48 bits after settings and epoch. */
function about (sequence = 1, bytes = 28, largest = 28, limits = settings): Buffer {
  const packed = Buffer.alloc(18)
  for (const [index, number] of [sequence, bytes, largest].entries()) packed.writeUIntBE(number, 6 * index, 6)
  return Buffer.concat([limits, randomBytes(8), packed])
}
const appendToOneCall = {
  name: 'appendToOne',
  script: appendToOne,
  keys: [keys.logMeta('g'), keys.log('g')],
  args: ['publisher', 'c', about(), randomBytes(4), 'body'],
  numbers: []
}
const keyedToOneCall = {
  ...appendToOneCall,
  name: 'appendToOne with a key',
  keys: appendCall.keys
}
const syncCall = {
  name: 'syncMembers',
  script: syncMembers,
  keys: [keys.index(id), keys.generations, keys.members('g', id), keys.counts('g')],
  args: [id, 1, 1_000, 'g', 1, 1, 'a.1', '[]', 'a.2'],
  numbers: [2, 3, 5, 6]
}
const beatCall = {
  name: 'beat',
  script: beat,
  keys: [keys.leases, keys.instances, keys.generations],
  args: [id, 1, 'nonce', 1_000, 1_000, 8, 1_000, 0],
  numbers: [2, 4, 5, 6, 7, 8]
}
const calls = [
  appendCall, appendToOneCall, keyedToOneCall, syncCall, beatCall,
  {
    name: 'reap',
    script: reap,
    keys: [keys.index(id), keys.generations, keys.counts('g'), keys.members('g', id)],
    args: [id, 1, 'g'],
    numbers: [2]
  },
  { name: 'markReaped', script: markReaped, keys: [keys.leases, keys.instances], args: [id, 1, 1_000], numbers: [3] },
  { name: 'unregister', script: unregister, keys: [keys.leases, keys.instances], args: [id, 'nonce'], numbers: [] },
  { name: 'storeUsers', script: storeUsers, keys: [keys.leases, keys.instances, keys.user('ann')], args: [id, 1_000, 1], numbers: [2, 3] },
  { name: 'setBlock', script: setBlock, keys: [keys.blocks], args: ['u:ann', 1_000, 10], numbers: [2, 3] },
  { name: 'revoke', script: revoke, keys: [keys.revocations('g')], args: [1_000, 10, '*', '', 's:a'], numbers: [1, 2] },
  {
    name: 'settleGroups',
    script: settleGroups,
    keys: [keys.told('group'), keys.answer(id), keys.counts('g')],
    args: [1_000, 'call', 'g'],
    numbers: [1]
  },
  {
    name: 'settleUsers',
    script: settleUsers,
    keys: [keys.told('user'), keys.answer(id), keys.leases, keys.instances, keys.user('ann')],
    args: [1_000, 'call', '', '', 'ann'],
    numbers: [1]
  },
  { name: 'claimNames', script: claimNames, keys: [keys.names], args: ['schema 1, 1 partition', 1_000], numbers: [2] },
  {
    name: 'writeStream',
    script: writeStream,
    keys: [keys.streamText('g', 'id'), keys.streamHead('g', 'id'), keys.streams('g')],
    args: ['epoch', 'head', 0, 'text', '', '', 1_000, '1', 1_000, '', 'id', 10, 'c', 'envelope'],
    numbers: [3, 7, 9, 12]
  }
]

for (const { name, script, keys, args, numbers } of calls) {
  t.test(`${name} writes nothing when an argument is wrong`, async t => {
    await redis.admin.flushall()
    // There is something to be spoilt.
    for (const call of [syncCall, beatCall]) await run(call.script, call.keys, call.args)
    const before = await everything()
    for (const at of numbers) {
      for (const wrong of ['', 'ten', '1.5', -1, 'nan', 'inf', '1e300', 'undefined']) {
        await t.rejects(run(script, keys, args.with(at - 1, wrong)), {
          message: at < 3 ? /argument|expected/ : new RegExp(`argument ${at} must be an integer`)
        }, `argument ${at}: ${wrong}`)
      }
    }
    await t.rejects(run(script, keys, args.slice(0, -1)), { message: /argument|expected/ }, 'one is missing')
    t.strictSame(await everything(), before)
    await t.resolves(run(script, keys, args), 'the right ones are taken')
  })
}

t.test('append refuses a nonce, settings, an epoch or a number of arguments that readers could not make sense of', async t => {
  await redis.admin.flushall()
  const { args, ...call } = appendCall
  const zero = (at: number): Buffer => { const bytes = Buffer.from(settings); bytes.fill(0, at, at + (at === 0 ? 4 : 6)); return bytes }
  const few = [...args, randomBytes(4), 'p', 'r']
  const several = args.with(3, 0).with(4, 1)
  const unmixed: Argument[][] = [
    args.with(13, 'abc'), args.with(9, 'short'), args.with(8, 'settings'), ...[0, 4, 10].map(at => args.with(8, zero(at))),
    [...args, randomBytes(4)], few, args.slice(0, 13)
  ]
  const mixed = ['', 'a', Buffer.from([0, 0]), Buffer.from([0, 3]), Buffer.from([0, 1, 0])].map(targets => [...several, targets, ''])
  for (const wrong of [...unmixed, ...mixed, several]) {
    await t.rejects(run(call.script, wrong[3] === 0 ? call.keys.slice(0, 2) : call.keys, wrong), { message: /must|expected/ })
  }
  t.strictSame(await everything(), [])
})

t.test('so does appendToOne', async t => {
  await redis.admin.flushall()
  const { script, keys: names, args } = appendToOneCall
  const zero = (at: number): Buffer => { const bytes = Buffer.from(settings); bytes.fill(0, at, at + (at === 0 ? 4 : 6)); return bytes }
  const wrong: Argument[][] = [
    args.with(3, 'abc'), [...args, 'body'], args.slice(0, 4), args.with(2, 'about'), args.with(2, about().subarray(1)),
    args.with(2, about(0)), args.with(2, about(1, 27, 28)), args.with(2, about(1, 0, 0)),
    ...[0, 4, 10].map(at => args.with(2, about(1, 28, 28, zero(at))))
  ]
  for (const one of wrong) await t.rejects(run(script, names, one), { message: /must|expected/ })
  await t.rejects(run(script, names.slice(1), args), { message: /expected/ })
  const keyed = keyedToOneCall
  const two = [...keyed.args.with(3, randomBytes(8)), 'body']
  await t.rejects(run(script, keyed.keys, two), { message: /expected/ })
  // A number too many.
  for (const keys of [names, keyed.keys]) {
    await t.rejects(run(script, keys, keyed.args.with(2, Buffer.concat([about(), Buffer.alloc(6)]))), { message: /must/ })
  }
  await t.rejects(run(script, [...keyed.keys, 'another'], keyed.args), { message: /expected/ })
  t.strictSame(await everything(), [])
})

t.test('appendToOne and append keep a log the same way, whichever comes when', async t => {
  await redis.admin.flushall()
  const limits = { maxMessages: 5, maxBytes: 600, ttlMs: 60_000 }
  const nonceOf = (sequence: number): Buffer => Buffer.from(`n${sequence}`.padEnd(4))
  const message = (text: string, group: string, sequence: number): Draft => {
    const envelope = { ...envelopeOf(group, text), origin: 'origin', sequence }
    return { ...encodeParts(envelope, false, envelope.target), targets: [{ group, log: limits }], sequence, nonce: nonceOf(sequence) }
  }
  let sequence = 0
  for (let round = 0; round < 40; round++) {
    const sizes = Array.from({ length: 1 + round % 7 }, (_, n) => round < 20 ? 5 : 30 * ((n + round) % 9))
    const first = sequence + 1
    sequence += sizes.length
    const messagesFor = (group: string): Draft[] => sizes.map((size, n) => message('x'.repeat(size), group, first + n))
    const batch = (group: string): AppendBatch => ({ publisher: 'publisher', key: undefined, messages: messagesFor(group) })
    const one = encodeToOne(keys, batch('one'))
    if (one === undefined) return t.fail('appendToOne can do this')
    const other = encodeAppend(keys, batch('two'))
    // The group that both scripts take turns with.
    const both = round % 2 === 0 ? encodeToOne(keys, batch('mix')) ?? other : encodeAppend(keys, batch('mix'))
    // Redis may lose the hash of a log by itself.
    if (round % 9 === 4) for (const group of ['one', 'two', 'mix']) await redis.admin.del(keys.logMeta(group))
    for (const call of [one, other, both]) await run(call.script, call.keys, call.args)
    const kept = async (group: string): Promise<unknown> => {
      const entries = await redis.admin.lrangeBuffer(keys.log(group), 0, -1)
      const meta = await redis.admin.hgetall(keys.logMeta(group))
      return {
        offsets: entries.map(entry => positionOf(entry).offset),
        nonces: entries.map(entry => [positionOf(entry).nonce, previousNonce(entry)]),
        payloads: entries.map(entry => decode(entry)?.payload.toString()),
        meta: [meta.s, meta.b, meta.g],
        lasts: [await redis.admin.pttl(keys.log(group)) > 59_000, await redis.admin.pttl(keys.logMeta(group)) > 1_800_000]
      }
    }
    t.strictSame(await kept('one'), await kept('two'), `${sizes.length} messages, round ${round}`)
    t.strictSame(await kept('mix'), await kept('two'))
    t.strictSame(await run(one.script, one.keys, one.args), await run(one.script, one.keys, one.args), 'a repetition changes nothing')
    t.strictSame(await kept('one'), await kept('two'))
    if (round % 9 !== 7) continue
    const lists = async (): Promise<unknown> => {
      return await Promise.all(['one', 'two'].map(async group => await redis.admin.dumpBuffer(keys.log(group))))
    }
    const before = await lists()
    for (const group of ['one', 'two']) await redis.admin.del(keys.logMeta(group))
    for (const call of [one, other]) await run(call.script, call.keys, call.args)
    t.strictSame(await lists(), before, 'nor does it where the hash is lost in between')
  }
})

t.test('a message with an idempotency key is stored once, whichever of both scripts is called first and whichever then', async t => {
  const limits = { maxMessages: 5, maxBytes: 600, ttlMs: 60_000 }
  let sequence = 0
  const batch = (key: string, publisher: string): AppendBatch => ({
    publisher,
    key,
    messages: [{
      ...encodeParts(envelopeOf('g', 'text'), false, { kind: 'group', name: 'g' }),
      targets: [{ group: 'g', log: limits }],
      sequence: ++sequence,
      nonce: randomBytes(4)
    }]
  })
  await redis.admin.flushall()
  for (const encoders of [[encodeToOne, encodeAppend], [encodeAppend, encodeToOne], [encodeToOne, encodeToOne]]) {
    const key = `key ${sequence}`
    const [first, second] = encoders.map((encode, index) => encode(keys, batch(key, `publisher ${index}`)))
    if (first === undefined || second === undefined) return t.fail('both scripts can do this')
    const [epoch, offset, nonce, known] = await run(first.script, first.keys, first.args) as unknown[]
    t.equal(known, 0)
    const repeated = await run(second.script, second.keys, second.args)
    t.strictSame(repeated, [epoch, offset, nonce, 1, '', 0], 'the other publisher learns where it is')
    t.strictSame(await run(first.script, first.keys, first.args), [epoch, offset, nonce, 0, '', 0], 'its own repetition is no duplicate')
    t.equal(await redis.admin.llen(keys.log('g')), offset, 'stored once')
    const ttl = await redis.admin.pttl(keys.idempotency('g', key))
    t.ok(ttl > 200_000 && ttl <= 300_000, 'the record goes by itself')
  }
})

for (const { name, script, keys: names, args } of [appendCall, appendToOneCall, keyedToOneCall]) {
  const keyed = name !== 'appendToOne'
  t.test(`${name} stores nothing for a user who lacks one of the rights it needs, whichever it is`, async t => {
    const rights = ['publish', 'rpush', 'ltrim', 'lpop', 'hset', 'pexpire', 'time', 'hmget', ...keyed ? ['set', 'get'] : []]
    const user = redis.admin.duplicate()
    t.teardown(() => user.disconnect())
    const allow = async (...rules: string[]): Promise<void> => {
      await redis.admin.call(
        'ACL', 'SETUSER', 'writer', 'on', '>pw', '~*', 'resetchannels', '&c', '&d', '+@all', ...rules
      )
    }
    await allow()
    await user.auth('writer', 'pw')
    for (const right of rights) {
      await redis.admin.flushall()
      await allow(`-${right}`)
      const refused = { message: /NOPERM|ACL failure|can't run this command|may not run/ }
      await t.rejects(user.eval(script.lua, names.length, ...names, ...args), refused, right)
      t.strictSame(await everything(), [], right)
    }
    await allow()
    for (const at of name === 'append' ? [6, 11] : [1]) {
      await t.rejects(
        user.eval(script.lua, names.length, ...names, ...args.with(at, 'elsewhere')), { message: /may not run PUBLISH elsewhere/ }
      )
      t.strictSame(await everything(), [], 'the channel')
    }
    await t.resolves(user.eval(script.lua, names.length, ...names, ...args))
  })

  t.test(`${name} stores the message or changes nothing when a right is lost between two messages, whichever it is`, async t => {
    const rights = ['publish', 'rpush', 'ltrim', 'lpop', 'lrange', 'hset', 'hdel', 'hgetall', 'pexpire', 'time', 'hmget', 'set', 'get']
    const user = redis.admin.duplicate()
    t.teardown(() => user.disconnect())
    const allow = async (...rules: string[]): Promise<void> => {
      await redis.admin.call('ACL', 'SETUSER', 'writer', 'on', '>pw', '~*', '&*', '+@all', ...rules)
    }
    await allow()
    await user.auth('writer', 'pw')
    // Each message is a third of what the log keeps: some go out.
    const rest = 'x'.repeat(330)
    const message = async (sequence: number): Promise<string> => {
      const call = name === 'append'
        ? args.with(10, sequence).with(13, randomBytes(4)).with(15, rest)
        : ['publisher', 'c', about(sequence, 24 + rest.length, 24 + rest.length), randomBytes(4), rest]
      const own = keyed ? names.with(2, keys.idempotency('g', String(sequence))) : names
      return await user.eval(script.lua, own.length, ...own, ...call).then(() => 'stored', () => 'refused')
    }
    const outcomes = new Map<string, string>()
    // Last those where Redis lost the hash of the log as well.
    for (const [index, right] of [...rights, ...rights].entries()) {
      await redis.admin.flushall()
      for (let sequence = 1; sequence < 6; sequence++) t.equal(await message(sequence), 'stored')
      const lost = index >= rights.length
      if (lost) await redis.admin.del(keys.logMeta('g'))
      const before = await everything()
      const latest = async (): Promise<Buffer | undefined> => (await redis.admin.lrangeBuffer(keys.log('g'), -1, -1))[0]
      const last = await latest()
      await allow(`-${right}`)
      const outcome = await message(6)
      if (!lost) outcomes.set(right, outcome)
      if (outcome === 'refused') t.strictSame(await everything(), before, right)
      else t.notSame(await latest(), last, right)
      await allow()
      t.equal(await message(7), 'stored')
      const offsets = (await redis.admin.lrangeBuffer(keys.log('g'), 0, -1)).map(bytes => positionOf(bytes).offset)
      t.strictSame(offsets, offsets.map((_, index) => (offsets[0] ?? 0) + index), 'no offset twice')
      t.ok(await redis.admin.pttl(keys.logMeta('g')) > 0, 'the hash will expire')
    }
    for (const right of ['publish', 'rpush', 'hset', 'time', 'hmget', ...keyed ? ['set', 'get'] : []]) {
      t.equal(outcomes.get(right), 'refused', right)
    }
    for (const right of ['ltrim', 'lpop', 'pexpire', 'hdel', 'hgetall']) t.equal(outcomes.get(right), 'stored', right)
  })
}

t.test('a key that is no list is told before anything is stored, in that log and in those beside it', async t => {
  const limits = { maxMessages: 10, maxBytes: 1_000, ttlMs: 1_000 }
  const drafts = (...groups: string[]): AppendBatch => ({
    publisher: 'publisher',
    key: undefined,
    messages: [{
      ...encodeParts(envelopeOf('a', 'text'), false, groups.length === 1 ? { kind: 'group', name: 'a' } : undefined),
      targets: groups.map(group => ({ group, log: limits })),
      sequence: 1,
      nonce: randomBytes(4)
    }]
  })
  await redis.admin.flushall()
  await redis.admin.set(keys.log('a'), 'not ours')
  const before = await everything()
  for (const call of [encodeToOne(keys, drafts('a')), encodeAppend(keys, drafts('a')), encodeAppend(keys, drafts('b', 'a'))]) {
    if (call === undefined) throw new Error('not a call of this script')
    await t.rejects(run(call.script, call.keys, call.args), { message: /WRONGTYPE/ })
    t.strictSame(await everything(), before)
  }
})

t.test('a meta that is no hash counts as no log, and the other logs of the call are read all the same', async t => {
  await redis.admin.flushall()
  await run(appendToOne, [keys.logMeta('ours'), keys.log('ours')], appendToOneCall.args)
  await redis.admin.set(keys.logMeta('theirs'), 'not ours')
  const names = [keys.logMeta('theirs'), keys.logMeta('ours'), keys.log('theirs'), keys.log('ours')]
  const ends = await run(readEnds, names, [1_000]) as unknown[]
  t.equal(ends.length, 5)
  t.equal(ends[0], null)
  t.equal(ends[2], '1')
})

/** The names and the arguments of a call that adds to a stream; `head`, where it begins one. */
function streamCall (id: string, at: number, text: string, head = ''): readonly [names: string[], args: Argument[]] {
  return [
    [keys.streamText('g', id), keys.streamHead('g', id), keys.streams('g')],
    ['epoch', head, at, text, '', '', 60_000, '', 30_000, '', id, 100, 'c', 'envelope']
  ]
}

t.test('writeStream changes nothing for a user who may not publish, nor when an argument is wrong', async t => {
  await redis.admin.flushall()
  await redis.admin.call('ACL', 'SETUSER', 'writer', 'reset', 'on', '>pw', '~*', '&*', '+@all', '-publish')
  const user = redis.admin.duplicate()
  t.teardown(() => user.disconnect())
  await user.auth('writer', 'pw')
  for (const [names, args] of [streamCall('s', 0, 'text', '{}'), streamCall('s', 4, ' and more')]) {
    const before = await everything()
    await t.rejects(user.eval(writeStream.lua, names.length, ...names, ...args), { message: /NOPERM|may not run/ })
    for (const at of [3, 7, 9, 12]) await t.rejects(run(writeStream, names, args.with(at - 1, 'ten')), { message: /must be an integer/ })
    await t.rejects(run(writeStream, names, args.slice(0, -1)), { message: /expected 14/ })
    t.strictSame(await everything(), before)
    t.equal(await run(writeStream, names, args), 'written')
  }
})

t.test('a full Redis takes no new members and no counts of users, whatever stands before them in the call, and lets others go', async t => {
  await redis.admin.flushall()
  t.teardown(async () => await redis.admin.config('SET', 'maxmemory', '0'))
  await redis.admin.hset(keys.generations, id, 1)
  // Groups with additions come first, as the store sends them.
  const groups = ['grown', 'mixed', 'new', 'left']
  const names = [keys.index(id), keys.generations, ...groups.flatMap(group => [keys.members(group, id), keys.counts(group)])]
  const head = [id, 1, 60_000]
  const before = ['grown', 1, 0, 'a', '[]', 'mixed', 1, 0, 'a', '[]', 'new', 0, 0, 'left', 1, 0, 'a', '[]']
  const after = ['grown', 1, 0, 'b', '[]', 'mixed', 1, 1, 'b', '[]', 'a', 'new', 1, 0, 'a', '[]', 'left', 0, 1, 'a']
  const counts = async (): Promise<unknown> => await Promise.all(groups.map(async group => await redis.admin.hget(keys.counts(group), '#')))
  await run(syncMembers, names, [...head, ...before])
  t.strictSame(await counts(), ['1', '1', null, '1'])
  const users = [keys.leases, keys.instances, ...['ann', 'bob', 'cid'].map(user => keys.user(user))]
  await run(storeUsers, users, [id, 60_000, 1, 0, 1])
  const online = async (): Promise<unknown> => await Promise.all(users.slice(2).map(async user => await redis.admin.hget(user, id)))
  await redis.admin.config('SET', 'maxmemory', '1')
  for (let n = 0; n < 2; n++) {
    await t.rejects(run(syncMembers, names, [...head, ...after]), { message: /OOM/ })
    t.strictSame(await counts(), ['1', null, null, null], 'who left is gone, nobody came')
    t.strictSame((await redis.admin.smembers(keys.index(id))).sort(), ['grown'])
    await t.rejects(run(storeUsers, users, [id, 60_000, 0, 1, 2]), { message: /OOM/ })
    t.strictSame(await online(), [null, null, '1'])
  }
  t.equal(await run(syncMembers, names, [...head, 'grown', 0, 1, 'a', 'mixed', 0, 0, 'new', 0, 0, 'left', 0, 1, 'a']), 0)
  t.strictSame(await run(storeUsers, users, [id, 60_000, 0, 0, 0]), [0, 0, 0])
  t.strictSame([await counts(), await online()], [[null, null, null, null], [null, null, null]])
  await redis.admin.config('SET', 'maxmemory', '0')
  t.equal(await run(syncMembers, names, [...head, ...after]), 0)
  t.strictSame(await counts(), ['1', '1', '1', null])
  t.strictSame(await run(storeUsers, users, [id, 60_000, 0, 1, 2]), [0, 0, 0])
  t.strictSame(await online(), [null, '1', '2'])
})

t.test('so does an instance where somebody leaves and somebody else joins at once', async t => {
  await redis.admin.flushall()
  t.teardown(async () => await redis.admin.config('SET', 'maxmemory', '0'))
  const local = new class extends Local {
    left = false
    override member (name: string, connectionId: string): Member | undefined {
      return name === 'left' && this.left ? undefined : super.member(name, connectionId)
    }
  }({ redis: redis.url })
  await local.start(t)
  const connectionId = `${local.instanceId}.1`
  await local.join('left', connectionId)
  await redis.admin.config('SET', 'maxmemory', '1')
  local.left = true
  await Promise.allSettled([local.backplane.syncMember('left', connectionId), local.join('grown', connectionId)])
  t.strictSame(await redis.admin.exists(keys.counts('left'), keys.counts('grown')), 0)
})

t.test('a full Redis takes no new streams, and lets the dead be claimed and marked', async t => {
  await redis.admin.flushall()
  await run(beatCall.script, beatCall.keys, beatCall.args)
  await redis.admin.zadd(keys.leases, 1, id)
  await redis.admin.config('SET', 'maxmemory', '1')
  t.teardown(async () => await redis.admin.config('SET', 'maxmemory', '0'))
  for (const name of ['s', 't']) {
    await t.rejects(run(writeStream, ...streamCall(name, 0, 'text', '{}')), { message: /OOM/ })
  }
  t.strictSame(await redis.admin.keys('*:s[thx]:*'), [])
  t.strictSame(await run(claimDead, [keys.leases, keys.instances], [1_000, id]), [1, id, '1'])
  t.equal(await run(markReaped, [keys.leases, keys.instances], [id, 1, 1_000]), 1)
  t.match(await redis.admin.hget(keys.instances, id), /^F1:/)
  await redis.admin.config('SET', 'maxmemory', '0')
})
