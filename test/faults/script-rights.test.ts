// A right that is lost at run time must not leave half of what a script writes, while its caller is told that nothing was done.
import t from 'tap'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import type { Script } from '../../lib/backplane/redis/link/script.ts'
import { removeGhost } from '../../lib/backplane/redis/membership/inspector.ts'
import { restoreBlocks, setBlock } from '../../lib/backplane/redis/membership/blocks.ts'
import { settleGroups } from '../../lib/backplane/redis/membership/occupancy.ts'
import { revoke } from '../../lib/backplane/redis/membership/revocations.ts'
import { beat, claimDead, markReaped, reap, syncMembers } from '../../lib/backplane/redis/membership/scripts.ts'
import { writeStream } from '../../lib/backplane/redis/streams/scripts.ts'
import { documentedRights } from '../helpers/documented-rights.ts'
import { startRedis } from '../helpers/redis.ts'

const redis = await startRedis(t)
const user = redis.admin.duplicate()
t.teardown(() => user.disconnect())
const keys = new Keys('wsg:')
const channel = 'wsg:{0}:c:g:g'

type Call = readonly [script: Script, names: readonly string[], args: ReadonlyArray<string | number>]

async function run ([{ lua }, names, args]: Call, by = redis.admin): Promise<unknown> {
  return await by.eval(lua, names.length, ...names, ...args)
}

async function allow (...rules: string[]): Promise<void> {
  await redis.admin.call('ACL', 'SETUSER', 'app', 'reset', 'on', '>pw', ...documentedRights('app'), ...rules)
}

async function everything (): Promise<unknown> {
  const names = (await redis.admin.keys('*')).sort()
  return await Promise.all(names.map(async name => [name, await redis.admin.dumpBuffer(name), await redis.admin.pttl(name) > 0]))
}

/** The rights of the documented line, each as a rule that takes it away. */
const rights = documentedRights('app').filter(word => /^\+(?!eval)/.test(word)).map(word => word.replace('+', '-'))

t.before(async () => {
  await allow()
  await user.auth('app', 'pw')
})

const block = (name: string, forMs: number): Call => [setBlock, [keys.blocks], [name, forMs, 10]]
const putOut = (...names: string[]): Call => [revoke, [keys.revocations('g')], [60_000, 3, '*', '1000', ...names]]
const stream = (at: number, text: string, more: { head?: string, state?: string, renew?: boolean } = {}): Call => [
  writeStream, [keys.streamText('g', 'id'), keys.streamHead('g', 'id'), keys.streams('g')], [
    'epoch', more.head ?? '', at, text, more.state ?? '', '', 60_000, more.renew === true ? '1' : '', 30_000, '', 'id', 9,
    channel, 'envelope'
  ]
]
/** Membership changes of an instance in one group. */
const sync = (instance: string, group: string, additions: number, ...more: string[]): Call => [
  syncMembers, [keys.index(instance), keys.generations, keys.members(group, instance), keys.counts(group)],
  [instance, 1, 60_000, group, additions, more.length - 2 * additions, ...more]
]
const settle = (call: string, ...groups: string[]): Call => [
  settleGroups, [keys.told('group'), keys.answer('id'), ...groups.map(group => keys.counts(group))], [60_000, call, ...groups]
]
const cases: ReadonlyArray<readonly [name: string, before: readonly Call[], call: Call]> = [
  ['the first block', [], block('u:eve', 60_000)],
  ['a later block', [block('u:eve', 60_000)], block('u:bob', 120_000)],
  ['blocks that are put back', [block('u:eve', 60_000)], [restoreBlocks, [keys.blocks], [10, 'u:bob', 60_000, 'u:cid', 120_000]]],
  ['an unblock', [block('u:eve', 60_000)], block('u:eve', 0)],
  ['the first who is put out', [], putOut('s:a')],
  ['one too many who are put out', [putOut('s:a', 's:b', 's:c')], putOut('s:d')],
  ['a stream that begins', [], stream(0, 'text', { head: '{}' })],
  ['a stream that goes on', [stream(0, 'text', { head: '{}' })], stream(4, 'more')],
  ['the first text of a stream', [stream(0, '', { head: '{}' })], stream(0, 'text')],
  ['a stream that is renewed', [stream(0, 'text', { head: '{}' })], stream(4, 'more', { renew: true })],
  ['a stream that ends', [stream(0, 'text', { head: '{}' })], stream(4, 'more', { state: 'done' })],
  [
    'what a hook is told', [sync('i', 'g', 1, 'i.1', '[]'), settle('first', 'g'), sync('i', 'h', 1, 'i.1', '[]'), sync('i', 'g', 0, 'i.1')],
    settle('next', 'h', 'g')
  ]
]

for (const [name, before, call] of cases) {
  t.test(`${name} is stored whole or not at all, whichever right is lost`, async t => {
    for (const right of rights) {
      await redis.admin.flushall()
      await redis.admin.hset(keys.generations, 'i', 1)
      for (const earlier of before) await run(earlier)
      const state = await everything()
      await allow(right)
      const refused = await run(call, user).then(() => false, () => true)
      if (refused) t.strictSame(await everything(), state, right)
      await allow()
      await run(call, user)
      t.notSame(await everything(), state, right)
    }
  })
}

t.test('a cleanup that fails halfway, whichever right is lost, subtracts nobody twice', async t => {
  const dead: Call = [reap, [keys.index('dead'), keys.generations, keys.counts('g'), keys.members('g', 'dead')], ['dead', 1, 'g']]
  const ghost: Call = [removeGhost, [keys.members('g', 'dead'), keys.counts('g'), keys.instances, keys.leases], ['dead']]
  // As when Redis lost the members, and the instance that had them writes what it has.
  const own = sync('dead', 'g', 0)
  for (const cleanup of [dead, ghost, own]) {
    for (const right of rights) {
      await redis.admin.flushall()
      await redis.admin.hset(keys.generations, 'dead', 1)
      await redis.admin.sadd(keys.index('dead'), 'g', '')
      await redis.admin.hset(keys.counts('g'), { '#': 7, dead: 2, alive: 5 })
      if (cleanup !== own) await redis.admin.hset(keys.members('g', 'dead'), { 'dead.1': '[]', 'dead.2': '[]' })
      await allow(right)
      for (let n = 0; n < 3; n++) await run(cleanup, user).catch(() => {})
      await allow()
      await run(cleanup, user)
      t.strictSame(await redis.admin.hgetall(keys.counts('g')), { '#': '5', alive: '5' }, right)
      t.equal(await redis.admin.exists(keys.members('g', 'dead')), 0)
    }
  }
})

t.test('a claim of a dead instance, and the note that it was cleaned up, keep its lease, whichever right is lost', async t => {
  const lease: Call = [beat, [keys.leases, keys.instances, keys.generations], ['dead', 1, 'nonce', 1_000, 1_000, 8, 60_000, 0]]
  const claim: Call = [claimDead, [keys.leases, keys.instances], [1_000, 'dead']]
  const mark: Call = [markReaped, [keys.leases, keys.instances], ['dead', 1, 1_000]]
  for (const call of [claim, mark]) {
    for (const right of rights) {
      await redis.admin.flushall()
      await run(lease)
      await redis.admin.zadd(keys.leases, 1, 'dead')
      if (call === mark) await redis.admin.hset(keys.instances, 'dead', 'X1:nonce')
      await allow(right)
      await run(call, user).catch(() => {})
      t.type(await redis.admin.zscore(keys.leases, 'dead'), 'string', right)
    }
  }
})
