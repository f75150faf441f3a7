import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Link } from '../../lib/backplane/redis/link/link.ts'
import { Subscriptions } from '../../lib/backplane/redis/link/subscriptions/subscriptions.ts'
import { crowd, Guest, spread } from '../helpers/crowd.ts'
import { closeClean, exact, startInstance, type Instance } from '../helpers/instance.ts'
import { group, Local } from '../helpers/local-instance.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

const groups = 40

t.test('2,000 connections that close while onConnect awaits their join leave no member, no key and no channel behind', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  // One instance on a slow link, so that every step of a join is caught in the middle by some of them.
  const slow = await startInstance(t, { redisUrl: proxy.url, options: { lingerMs: 200 } })
  const fast = await startInstance(t, { redisUrl: redis.url, options: { lingerMs: 0 } })
  const instances = [slow, fast] as [Instance, Instance]
  const idle = await redis.channels()
  const rooms = spread(1_000, groups)
  let caught = 0

  const visit = async ({ port }: Instance, room: string, index: number): Promise<void> => {
    const guest = new Guest(port, `/ws/${room},${room}-too`, `user-${index % 50}`)
    // Half of them leave some time after they called, half of them some time after they were let in.
    if (index % 2 === 0) await until(() => guest.upgraded, { everyMs: 1 })
    await sleep(index % 31)
    if (guest.upgraded && guest.id === '') caught++
    if (index % 3 === 0) guest.close()
    else guest.terminate()
    await until(() => guest.closed, { timeoutMs: 60_000 })
  }
  for (const [round, delayMs] of [0, 5, 12, 25].entries()) {
    proxy.delay(delayMs)
    const some = rooms.slice(round * 250, round * 250 + 250)
    for (let start = 0; start < some.length; start += 25) {
      await Promise.all(
        instances.flatMap(instance => some.slice(start, start + 25).map(async (room, index) => await visit(instance, room, index + start)))
      )
    }
  }
  proxy.delay(0)
  t.ok(caught > 400, `2,000 came, ${caught} of them left in the middle of their join`)

  for (const instance of instances) {
    await until(async () => {
      const { connections, groups, connectionsOpened, connectionsClosed } = await instance.ask('stats')
      return connections === 0 && groups === 0 && connectionsOpened === connectionsClosed
    }, { what: 'the last of them to be forgotten' })
  }
  await exact(instances, { groups: [...new Set(rooms)].flatMap(room => [room, `${room}-too`]) })
  // The numbers of users are stored after that.
  const others = async (): Promise<string[]> => (await redis.keys()).filter(key => !/:(live|inst|gen)$/.test(key))
  await until(async () => (await others()).length === 0, { what: 'no key but the leases to be left' })
  await until(async () => (await redis.channels()).length === idle.length, { what: 'the channels to be dropped' })
  t.strictSame(await redis.channels(), idle, 'no channel but those of the instances')
  for (const instance of instances) {
    const { channelsWanted, channelsSubscribed } = await instance.ask('stats')
    t.strictSame({ channelsWanted, channelsSubscribed }, { channelsWanted: 2, channelsSubscribed: 2 })
  }

  // And all of it still works.
  const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, spread(40, groups))))).flat()
  await exact(instances)
  for (const guest of guests) guest.close()
  await exact(instances, { groups: rooms })
  await closeClean(t, redis, instances)
})

t.test('a channel that is given up and wanted again before its acknowledgement is subscribed when the second call resolves', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const slow = await new Local({ redis: proxy.url, lingerMs: 0 }).start(t)
  const fast = await new Local({ redis: redis.url }).start(t)
  proxy.delay(20)
  // The first acknowledgement arrives after 40 ms, when the third command may still be on its way.
  for (let pauseMs = 10; pauseMs <= 70; pauseMs += 2) {
    const target = group(`flap-${pauseMs}`)
    const first = slow.backplane.subscribe(target)
    await sleep(2)
    slow.backplane.unsubscribe(target)
    await sleep(pauseMs)
    await slow.backplane.subscribe(target)
    await fast.publish(target, String(pauseMs))
    await first
  }
  await until(() => slow.received.length === 31, { timeoutMs: 1_000 }).catch(() => {})
  t.strictSame(
    slow.received.map(({ payload }) => Number(payload)), Array.from({ length: 31 }, (_, index) => 10 + 2 * index), 'no message is missed'
  )
  proxy.delay(0)
  await Promise.all([slow, fast].map(async ({ backplane }) => await backplane.close()))
  t.strictSame([...await redis.keys(), ...await redis.channels()], [])
})

t.test('a group that is left before its subscription is acknowledged is nothing to be caught up with', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const reported: string[][] = []
  const local = new class extends Local {
    override stateChanged (): void { reported.push([...this.backplane.problems]) }
  }({ redis: proxy.url, lingerMs: 10_000 })
  const { backplane } = await local.start(t)
  proxy.delay(100, 'subscribers')
  const before = reported.length
  const names = ['logged-1', 'logged-2', 'logged-3']
  for (const name of names) {
    const subscribing = backplane.subscribe(group(name))
    await until(async () => (await redis.channels()).some(channel => channel.endsWith(name)), { everyMs: 1 })
    backplane.unsubscribe(group(name))
    await subscribing
    t.equal(backplane.position(name), undefined, 'the acknowledgement is on its way')
  }
  await until(() => names.every(name => backplane.position(name) !== undefined), { what: 'all to be subscribed, and in step' })
  t.strictSame(reported.slice(before), [])
  t.equal(backplane.state, 'up')
})

t.test('a channel that is given up while the connection for subscriptions is broken is dropped like any other', async t => {
  // A link that never answers; the session would do the rest.
  const link = { up: true, problem: undefined, run: async () => await new Promise<never>(() => {}), reset () {} } as unknown as Link
  const dropped: string[] = []
  const subscriptions = new Subscriptions(link, 1_000, 5, 'last', { acked () {}, dropped (name) { dropped.push(name) }, changed () {} })
  const waiting = subscriptions.subscribe('lobby')
  await sleep(1)                                                // SUBSCRIBE is on its way
  subscriptions.disconnected()
  subscriptions.unsubscribe('lobby')
  await t.resolves(waiting, 'whoever gave it up does not wait for it')
  await until(() => dropped.includes('lobby'))
  t.equal(subscriptions.wanted, 0)
})
