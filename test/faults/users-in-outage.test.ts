import t from 'tap'
import { Occupancy } from '../../lib/groups/occupancy.ts'
import { BoundedLog } from '../../lib/logging.ts'
import { Local } from '../helpers/local-instance.ts'
import { silentLog } from '../helpers/loggers.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

t.test('users that come and go in an outage leave nothing to do, and each change that is left is told once', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const local = await new Local({ redis: proxy.url }).start(t)
  const told: string[] = []
  const hooks = { onUserOnline: (name: string) => { told.push(`+${name}`) }, onUserOffline: (name: string) => { told.push(`-${name}`) } }
  const occupancy = new Occupancy(local.backplane, () => local.users.keys(), hooks, silentLog, new BoundedLog())
  local.stateChanged = () => { if (local.backplane.state === 'up') occupancy.recheck() }
  const comes = (name: string): void => {
    local.users.set(name, 1)
    occupancy.changed('user', name)
  }
  const goes = (name: string): void => {
    local.users.delete(name)
    occupancy.changed('user', name)
  }
  for (const name of ['stays', 'goes', 'is back']) comes(name)
  await until(() => told.length === 3)
  told.splice(0)
  await proxy.refuse(true)
  proxy.cut()
  await until(() => local.backplane.state === 'down')
  for (let n = 0; n < 20_000; n++) {
    comes(`passing ${n}`)
    if (n >= 100) goes(`passing ${n - 100}`)
    if (n % 100 === 0) await new Promise(setImmediate)
  }
  for (let n = 19_900; n < 20_000; n++) goes(`passing ${n}`)
  for (const name of ['goes', 'is back']) goes(name)
  comes('is back')
  comes('came')
  await redis.admin.config('RESETSTAT')
  await proxy.refuse(false)
  await until(() => told.length >= 2)
  await occupancy.close()
  t.strictSame(told.sort(), ['+came', '-goes'])
  const [, removed = '0'] = /cmdstat_hdel:calls=(\d+)/.exec(await redis.admin.info('commandstats')) ?? []
  t.ok(Number(removed) <= 300, `Redis was asked to remove ${removed} counts`)
})
