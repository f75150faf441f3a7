import t from 'tap'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Keys } from '../../../lib/backplane/redis/keys.ts'
import { UserCounts } from '../../../lib/backplane/redis/membership/users.ts'
import { WebsocketGroupsError } from '../../../lib/errors.ts'
import { silentLog } from '../../helpers/loggers.ts'

const noReads = { async run (): Promise<never> { throw new Error('only beats read, and none comes') } }
const noEvictions = { async look (): Promise<number> { return 0 } }

/** Counts of users over a link that answers at once, paced by the test. `calls`: the users of each call. */
function setup (): { counts: UserCounts, calls: string[][], begin: () => void } {
  const keys = new Keys('wsg:')
  const calls: string[][] = []
  let waiting: (() => void) | undefined
  const begin = (): void => {
    waiting?.()
    waiting = undefined
  }
  const link = {
    ...noReads,
    async script (_script: unknown, names: readonly string[]) {
      calls.push(names.slice(2))
      return names.slice(2).map(() => 0)
    }
  }
  const local = { instanceId: 'i', connectionsOf: () => 1, log: silentLog }
  const counts = new UserCounts(link, keys, { on () {} }, local, noEvictions, 1, { soon (work) { waiting = work }, close: begin })
  return { counts, calls, begin }
}

t.test('users who come shortly after one another are counted by one call', async t => {
  const { counts, calls, begin } = setup()
  const counted = [counts.sync('a')]
  begin()
  await counted[0]
  for (const userId of ['b', 'c', 'd']) {
    counted.push(counts.sync(userId))
    await nextTurn()
  }
  t.equal(calls.length, 1, 'those wait')
  begin()
  t.strictSame(await Promise.all(counted), [0, 0, 0, 0])
  t.strictSame(calls.map(({ length }) => length), [1, 3])
})

t.test('what waits when it closes is refused, and only what is stored is removed', async t => {
  const { counts, calls, begin } = setup()
  const stored = counts.sync('stored')
  begin()
  await stored
  const waiting = counts.sync('waiting')
  const refused = t.rejects(waiting, { code: 'WSG_CLOSED' })
  await counts.close()
  await refused
  t.equal(calls.length, 2)
  t.match(calls[1], [/stored$/])
})

t.test('of users that come and go while Redis is out, only those are kept that may be in Redis', async t => {
  const here = new Set<string>()
  let [calls, failure]: [Array<readonly string[]>, Error | undefined] = [[], undefined]
  const link = {
    ...noReads,
    async script (_script: unknown, keys: readonly string[]) {
      if (failure !== undefined) throw failure
      calls.push(keys.slice(2).map(key => key.replace(/.*:/, '')))
      return keys.slice(2).map(() => 0)
    }
  }
  const local = { instanceId: 'i', connectionsOf: (userId: string) => Number(here.has(userId)), log: silentLog }
  const pace = { soon: (work: () => void) => { queueMicrotask(work) }, close () {} }
  const counts = new UserCounts(link, new Keys('wsg:'), { on () {} }, local, noEvictions, 1, pace)
  const comes = async (userId: string): Promise<unknown> => await counts.sync((here.add(userId), userId)).catch((error: unknown) => error)
  const goes = async (userId: string): Promise<unknown> => await counts.sync((here.delete(userId), userId)).catch((error: unknown) => error)
  await Promise.all(['stays', 'goes'].map(comes))
  failure = new WebsocketGroupsError('WSG_TIMEOUT')
  await Promise.all(['unknown', 'unknown and here'].map(comes))
  await goes('unknown')
  failure = new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE')
  await goes('goes')
  for (let n = 0; n < 1_000; n++) {
    const [came, comesNext] = [comes(`passing ${n}`), comes(`soon gone ${n}`)]
    if (n % 2 === 0) await Promise.all([came, comesNext])
    await Promise.all([goes(`passing ${n}`), goes(`soon gone ${n}`)])
  }
  await comes('came')
  await t.rejects(counts.stored(), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
  calls = []
  failure = undefined
  await counts.stored()
  t.strictSame(calls.flat().sort(), ['came', 'goes', 'unknown', 'unknown and here'])
  await counts.stored()
  t.equal(calls.length, 1, 'nothing is out of date')
  await counts.close()
})
