import t from 'tap'
import { maxBlocks, type Block } from '../../../lib/backplane/backplane.ts'
import { deferred } from '../../../lib/deadline.ts'
import { WebsocketGroupsError } from '../../../lib/errors.ts'
import { Blocklist } from '../../../lib/groups/blocklist.ts'
import { resolveOptions } from '../../../lib/options/resolve.ts'
import { fakeTime } from '../../client/fake-time.ts'
import { fakeInstance } from '../../helpers/fakes.ts'
import { until } from '../../helpers/until.ts'

const identityOf = (userId: string): { userId: string } => ({ userId })

t.test('a block, or its end, that comes while the list is loaded counts, and not the older list', async t => {
  const { blocks, backplane } = fakeInstance()
  const lists = [deferred<Block[]>(), deferred<Block[]>()]
  let asked = 0
  backplane.blocks = async () => await (lists[asked++]?.promise ?? [])
  const old = ['bob', 'cid'].map(name => ({ name: `u:${name}`, leftMs: 60_000 }))
  const [first, second] = [blocks.load(), blocks.load()]
  blocks.apply('u:ann', 60_000)
  blocks.apply('u:bob', 0)
  for (const [n, load] of [first, second].entries()) {
    lists[n]?.resolve(old)
    await load
    t.strictSame(['ann', 'bob', 'cid'].map(name => blocks.covers(identityOf(name))), [true, false, true])
  }
  await blocks.load()
  t.strictSame(['ann', 'bob', 'cid'].map(name => blocks.covers(identityOf(name))), [false, false, false], 'a later list counts')
})

t.test('a load that fails while the backplane stays up is repeated, until the list is closed', async t => {
  const time = fakeTime(t)
  const { blocks, backplane } = fakeInstance()
  const timeout = new WebsocketGroupsError('WSG_TIMEOUT')
  let asked = 0
  backplane.blocks = async () => {
    if (++asked < 3) throw timeout
    return [{ name: 'u:ann', leftMs: 60_000 }]
  }
  await blocks.load()
  t.equal(blocks.covers(identityOf('ann')), false)
  time.pass(2_000)
  await until(() => asked === 2)
  await until(() => {
    time.pass(2_000)
    return blocks.covers(identityOf('ann'))
  })
  t.equal(asked, 3)
  time.pass(60_000)
  t.equal(asked, 3, 'a list that was loaded is not loaded again')

  asked = 0
  await blocks.load()
  blocks.close()
  time.pass(60_000)
  t.equal(asked, 1)
})

t.test('blocks that are over do not push out one that lasts, and are not counted', t => {
  let now = 0
  const { backplane, metrics } = fakeInstance()
  const blocks = new Blocklist(() => [], backplane, resolveOptions(), metrics, error => { throw error }, () => now)
  blocks.apply('u:ann', 30 * 86_400_000)
  for (let n = 0; n < 2 * maxBlocks; n++, now += 1_000) blocks.apply(`u:${n}`, 5_000)
  t.equal(blocks.covers(identityOf('ann')), true)
  t.equal(blocks.size, 5)
  t.end()
})

t.test('a block that the list has no room for holds nowhere', async t => {
  const { blocks, commands, backplane } = fakeInstance()
  backplane.block = async () => false
  await t.rejects(commands.block({ userId: 'ann' }, 60_000), { code: 'WSG_BLOCKLIST_FULL' })
  t.equal(blocks.covers(identityOf('ann')), false)
})

t.test('a load that nobody waits for and that fails with an error that is no outage is reported and repeated', async t => {
  const time = fakeTime(t)
  const { backplane, metrics } = fakeInstance()
  const failed: unknown[] = []
  const blocks = new Blocklist(() => [], backplane, resolveOptions(), metrics, error => failed.push(error))
  const error = new Error('of a backplane of somebody')
  let asked = 0
  backplane.blocks = async () => {
    if (++asked < 3) throw error
    return [{ name: 'u:ann', leftMs: 60_000 }]
  }
  await blocks.reload()
  t.strictSame(failed, [error])
  await until(() => {
    time.pass(2_000)
    return blocks.covers(identityOf('ann'))
  })
  t.strictSame(failed, [error, error])
})
