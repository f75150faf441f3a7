import t from 'tap'
import { randomBytes } from 'node:crypto'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import type { Script } from '../../lib/backplane/redis/link/script.ts'
import { append } from '../../lib/backplane/redis/log/scripts.ts'
import { packSettings } from '../../lib/backplane/redis/log/settings.ts'
import { beat, markReaped, reap, syncMembers, unregister } from '../../lib/backplane/redis/membership/scripts.ts'
import { startRedis } from '../helpers/redis.ts'

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
  args: [id, 1, 'nonce', 1_000, 1_000, 8, 1_000],
  numbers: [2, 4, 5, 6, 7]
}
const calls = [
  appendCall, syncCall, beatCall,
  { name: 'reap', script: reap, keys: [keys.index(id), keys.generations], args: [id, 1, 10, keys.base], numbers: [2, 3] },
  { name: 'markReaped', script: markReaped, keys: [keys.leases, keys.instances], args: [id, 1, 1_000], numbers: [3] },
  { name: 'unregister', script: unregister, keys: [keys.leases, keys.instances], args: [id, 'nonce'], numbers: [] }
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

t.test('append stores nothing for a user who lacks one of the rights it needs, whichever it is', async t => {
  const rights = ['publish', 'rpush', 'ltrim', 'lpop', 'hset', 'pexpire', 'set', 'get', 'time', 'hmget']
  const { script, keys: names, args } = appendCall
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
    await t.rejects(user.eval(script.lua, names.length, ...names, ...args), { message: /NOPERM|can't run this command|may not run/ }, right)
    t.strictSame(await everything(), [], right)
  }
  await allow()
  for (const at of [6, 11]) {
    await t.rejects(
      user.eval(script.lua, names.length, ...names, ...args.with(at, 'elsewhere')), { message: /may not run PUBLISH elsewhere/ }
    )
    t.strictSame(await everything(), [], 'the channel')
  }
  await t.resolves(user.eval(script.lua, names.length, ...names, ...args))
})
