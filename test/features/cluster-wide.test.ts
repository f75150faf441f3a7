import t from 'tap'
import { onEveryCluster } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'

noUnhandled(t)
const redis = await startRedis(t)

onEveryCluster(t, redis, 'groups are listed, and connections and users counted, in the whole cluster', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const [x, y] = [await a.open({ user: 'ann' }), await b.open({ user: 'ann' })]
  await b.open({ user: 'bob' })
  await a.open()
  const names = Array.from({ length: 7 }, (_, n) => `room:${n}`)
  for (const [n, name] of names.entries()) await a.registry.join(n % 2 === 0 ? x.id : y.id, name)
  await a.registry.join(y.id, 'room:0')
  await b.registry.join(y.id, 'other')
  t.strictSame([...await a.registry.groupList()], ['other', ...names])
  t.strictSame(await b.registry.groupList({ prefix: 'room:' }), Object.assign([...names], { missing: 0 }))
  const pages: string[][] = []
  for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
    const page = await b.registry.groupList({ prefix: 'room:', limit: 3, cursor })
    pages.push([...page])
    cursor = page.cursor
  }
  t.strictSame(pages, [names.slice(0, 3), names.slice(3, 6), names.slice(6)])
  t.strictSame([await a.registry.connectionCount(), await b.registry.connectionCount()], [4, 4])
  t.strictSame([await a.registry.userCount(), await b.registry.userCount()], [2, 2])
  await t.rejects(a.registry.groupList({ limit: 0 }), { code: 'WSG_OPTION_INVALID' })
  await t.rejects(a.registry.groupList({ cursor: '%' }), { code: 'WSG_OPTION_INVALID' })
})

onEveryCluster(t, redis, 'members come by user, and in pages', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const members = [await a.enter('room', { user: 'ann' }), await b.enter('room', { user: 'ann' }), await b.enter('room', { user: 'bob' })]
  const ids = members.map(({ id }) => id)
  const idsOf = (list: ReadonlyArray<{ readonly connectionId: string }>): string[] => list.map(({ connectionId }) => connectionId)
  t.strictSame(idsOf(await a.registry.members('room', { userId: 'ann' })).sort(), ids.slice(0, 2).sort())
  t.strictSame([...await a.registry.members('room', { userId: 'eve' })], [])
  const first = await b.registry.members('room', { limit: 2 })
  const second = await a.registry.members('room', { limit: 2, cursor: first.cursor })
  t.strictSame([...idsOf(first), ...idsOf(second)], [...ids].sort())
  t.strictSame([first.length, second.cursor, second.ageMs], [2, undefined, 0])
  await t.rejects(a.registry.members('room', { limit: 0 }), { code: 'WSG_OPTION_INVALID' })
})
