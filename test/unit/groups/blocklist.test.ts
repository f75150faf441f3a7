import t from 'tap'
import type { Block } from '../../../lib/backplane/backplane.ts'
import { deferred } from '../../../lib/deadline.ts'
import { WebsocketGroupsError } from '../../../lib/errors.ts'
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
