// Instances, publishers and clients of version 0.1.0 beside those of now: upgraded one by one under load, and downgraded again.
import t, { type Test } from 'tap'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { connect } from '../../../lib/client/index.ts'
import { createPublisher, type Publisher } from '../../../plugin.ts'
import { crowd, everyoneHears } from '../../helpers/crowd.ts'
import { exact, startInstance, type Instance } from '../../helpers/instance.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { startRedis } from '../../helpers/redis.ts'
import { until } from '../../helpers/until.ts'
import { sourceOfVersion01 } from '../../helpers/version-0.1.ts'
import { fault, Reader } from './reader.ts'

const before = sourceOfVersion01()
const clients = 24
const everyMs = 25
const options = { leaseMs: 2_000, log: { maxMessages: 1_000, ttlMs: 300_000 } }
type Version = 'before' | 'now'

if (before === undefined) t.plan(0, 'this clone has no history with version 0.1.0 in it')
else void runAll(before)

async function runAll (source: string): Promise<void> {
  const importBefore = async (file: string): Promise<unknown> => await import(pathToFileURL(join(source, file)).href)
  const { createPublisher: createPublisherBefore } = await importBefore('plugin.ts') as { createPublisher: typeof createPublisher }
  const { connect: connectBefore } = await importBefore('lib/client/index.ts') as { connect: typeof connect }

  async function start (t: Test, redisUrl: string, version: Version): Promise<Instance> {
    const program = version === 'before' ? { program: join(source, 'test/helpers/instance-process.ts') } : {}
    // As docs/upgrading.md says: 0.1.0 knows no logs of users.
    const own = version === 'before' ? options : { ...options, userLog: false as const }
    return await startInstance(t, { redisUrl, options: own, ...program })
  }

  await t.test('instances are upgraded one by one under load, and downgraded: nothing lost, doubled or out of order', async t => {
    noUnhandled(t)
    const redis = await startRedis(t)
    const versions: Version[] = ['before', 'before']
    const instances = await Promise.all(versions.map(async version => await start(t, redis.url, version)))
    const ports = instances.map(({ port }) => port)
    const rooms = ['of a publisher before', 'of a publisher now', 'a pair', 'another pair']
    const readers = Array.from({ length: clients }, (_, i) => {
      return new Reader(t, ports, encodeURIComponent(rooms[i % rooms.length] ?? ''), {}, i % 8 < 4 ? connect : connectBefore)
    })
    const groupsOf = (reader: Reader): string[] => [rooms[readers.indexOf(reader) % rooms.length] ?? '']
    const away = (): number => readers.filter(reader => !reader.isIn(groupsOf(reader))).length
    await until(() => away() === 0, { what: 'all clients to be there' })

    const publisherOptions = { redis: redis.url, operationTimeoutMs: 10_000, log: options.log }
    const [publisherBefore, publisher] = [createPublisherBefore(publisherOptions), createPublisher(publisherOptions)]
    t.teardown(async () => await Promise.all([publisherBefore.close(), publisher.close()]))
    const stopping = new AbortController()
    const sent = new Map<string, number>()
    const publish = async (groups: string[], send: Publisher['broadcastToGroup']): Promise<void> => {
      for (let n = 1; !stopping.signal.aborted; n++) {
        const pause = sleep(everyMs)
        await send(groups, String(n))
        for (const group of groups) sent.set(group, n)
        await pause
      }
    }
    // A message that names its sender, and one whose copies say where they stand: 0.1.0 knows neither.
    const from = { userId: 'the sender', connectionId: 'abcdefghij.1' }
    const series = [
      publish(rooms.slice(0, 1), async (groups, data) => await publisherBefore.broadcastToGroup(groups, data)),
      publish(rooms.slice(1, 2), async (groups, data) => await publisher.broadcastToGroup(groups, data, { from })),
      publish(rooms.slice(2), async (groups, data) => await publisher.broadcastToGroup(groups, data, { from }))
    ]
    const replace = async (index: number, version: Version, end: 'close' | 'kill'): Promise<void> => {
      await sleep(200)
      const [former, next] = [instances[index], await start(t, redis.url, version)]
      instances[index] = next
      ports[index] = next.port
      await former?.[end]()
      await until(() => away() === 0, { timeoutMs: 60_000, what: 'all clients to be back' })
    }
    await replace(0, 'now', 'close')
    await replace(1, 'now', 'kill')
    await replace(0, 'before', 'close')
    await sleep(200)
    stopping.abort()
    await Promise.all(series)

    const missing = (): number => readers.reduce((sum, reader) => {
      return groupsOf(reader).reduce((sum, group) => sum + (sent.get(group) ?? 0) - reader.ledger(group).delivered, sum)
    }, 0)
    await until(() => missing() === 0, { what: 'the last messages' }).catch(error => t.comment(error))
    await sleep(100) // for what comes twice
    t.equal(fault(readers, sent, groupsOf), undefined)
    t.ok(readers.every(({ returns }) => returns > 1), 'every client had to come back')
    for (const instance of instances) t.match(await instance.ask('stats'), { envelopesUnknown: 0 })
    t.comment(`${[...sent.values()].reduce((a, b) => a + b)} messages`)
  })

  await t.test('instances of both versions count alike, act on the connections of each other, and clean up after each other', async t => {
    noUnhandled(t)
    const redis = await startRedis(t)
    const instances = await Promise.all((['before', 'now'] as const).map(async version => await start(t, redis.url, version)))
    const [old, now] = instances as [Instance, Instance]
    const user = (index: number): string => `user-${index}`
    const guests = await Promise.all(instances.map(async ({ port }) => await crowd(t, port, ['lobby', 'lobby,news', 'news'], { user })))
    const all = guests.flat()
    const members = new Map([
      ['lobby', all.filter((_, index) => index % 3 < 2)], ['news', all.filter((_, index) => index % 3 > 0)]
    ])
    await exact(instances)
    await everyoneHears(t, instances, members, 'logged')
    await everyoneHears(t, instances, members, 'volatile', { volatile: true })
    await now.ask('broadcast', ['lobby', 'news'], 'to both', { from: { userId: 'the sender' } })
    await old.ask('broadcast', ['lobby', 'news'], 'to both again')
    await until(() => all.every(({ messages }) => messages.includes('to both') && messages.includes('to both again')))
    t.ok(
      all.every(({ messages }) => messages.filter(text => text.startsWith('to both')).length === 2), 'a member of both groups gets it once'
    )

    for (const [asker, there] of [[old, guests[1]], [now, guests[0]]] as const) {
      const [guest, other] = there ?? []
      if (guest === undefined || other === undefined) throw new Error('there are no guests')
      t.equal(await asker.ask('sendTo', guest.id, 'by id'), true)
      t.equal((await asker.ask('sendToUser', 'user-1', 'by user')).scope, 'cluster')
      await until(() => guest.messages.includes('by id') && other.messages.includes('by user'))
      t.match(await asker.ask('join', guest.id, 'more'), { scope: 'cluster' })
      await exact(instances)
      t.equal(await asker.ask('leave', guest.id, 'more'), true)
      t.equal(await asker.ask('disconnect', guest.id), 1)
      await until(() => guest.closed)
    }
    await exact(instances)
    await old.kill()
    await until(async () => (await now.ask('view', ['lobby'])).every(({ count }) => count === 1), { timeoutMs: 40_000 })
    await exact([now])
  })
  await t.test('in a numbered database, where channels have other names now, all are replaced at once: no message is lost', async t => {
    noUnhandled(t)
    const { url } = await startRedis(t)
    const redisUrl = `${url}/1`
    const old = await start(t, redisUrl, 'before')
    const ports = [old.port]
    const readers = Array.from({ length: 4 }, () => new Reader(t, ports, 'lobby', { backoff: { minMs: 50, maxMs: 200 } }))
    await until(() => readers.every(reader => reader.isIn(['lobby'])))
    const [publisherBefore, publisher] = [createPublisherBefore, createPublisher].map(create => {
      return create({ redis: redisUrl, log: options.log })
    })
    t.teardown(async () => await Promise.all([publisherBefore?.close(), publisher?.close()]))
    for (let n = 1; n <= 10; n++) await publisherBefore?.broadcastToGroup('lobby', String(n))
    await until(() => readers.every(reader => reader.ledger('lobby').delivered === 10))
    await old.close()
    for (let n = 11; n <= 20; n++) await publisher?.broadcastToGroup('lobby', String(n))
    ports.splice(0, 1, (await start(t, redisUrl, 'now')).port)
    await until(() => readers.every(reader => reader.ledger('lobby').delivered === 20), { timeoutMs: 60_000 })
    t.equal(fault(readers, new Map([['lobby', 20]]), () => ['lobby']), undefined)
  })
}
