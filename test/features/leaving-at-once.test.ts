import t from 'tap'
import type { Connection } from '../../plugin.ts'
import { onEveryCluster, startInstance } from '../helpers/app.ts'
import { connect } from '../helpers/client.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { clientFrame, rawConnection, upgradeHead } from '../http/raw.ts'

noUnhandled(t)
const machine = watchMachine(t)
const redis = await startRedis(t)

interface End {
  readonly code: number
  readonly groups: readonly string[]
  /** How many the group had when `onDisconnect` ran. */
  readonly count: number
}

onEveryCluster(t, redis, 'a connection that the server closes is nowhere at once, and its socket is gone soon', async (t, cluster) => {
  const ends: End[] = []
  const a = await cluster.start({
    routes (app) {
      app.get('/watched', { websocket: true, preHandler: app.wsAuth() }, app.wsHandler({
        async onConnect (connection) {
          await app.registry.join(connection, 'lobby')
          connection.send(connection.id)
        },
        onMessage () {},
        async onDisconnect (connection, { code }) {
          ends.push({ code, groups: connection.groups, count: await app.registry.groupCount('lobby') })
        }
      }))
    }
  })
  const b = await cluster.start()
  const mute = connect(t, `${a.url}/watched`, { headers: { authorization: 'Bearer john' } })
  const id = String(await mute.next())
  const connection = a.registry.get(id) as Connection
  mute.ws.pause()
  t.equal(await b.registry.groupCount('lobby'), 1)
  const startedAt = performance.now()
  t.equal(await b.registry.disconnect({ userId: 'john' }), 1)
  t.equal(a.registry.count(), 0)
  t.equal(a.registry.get(id), undefined)
  t.equal(connection.closed, true)
  t.equal(connection.signal.aborted, true)
  await until(async () => await b.registry.groupCount('lobby') === 0 && (await b.registry.members('lobby')).length === 0)
  machine.within(t, performance.now() - startedAt, 1_500, 'long before the socket is gone')
  t.equal((await a.registry.broadcastToGroup('lobby', 'x')).localRecipients, 0)
  t.equal(await b.registry.disconnect({ userId: 'john' }), 0)
  await t.rejects(a.registry.join(connection, 'other'), { code: 'WSG_CONNECTION_GONE' })
  await until(() => ends.length === 1)
  const took = performance.now() - startedAt
  t.ok(took >= 1_900, `not sooner than the answer to the close is due: ${took.toFixed()} ms`)
  machine.within(t, took, 4_000, 'and soon after')
  t.strictSame(ends, [{ code: 1000, groups: ['lobby'], count: 0 }])
  t.equal(a.registry.stats().connectionsClosed, 1)
})

t.test('who has said goodbye is nowhere at once, though it keeps its socket open', async t => {
  const left: number[] = []
  const a = await startInstance(t, {
    routes: app => app.wsRoom('/watched/:room', {
      auth: false,
      group: ({ room }) => room,
      onLeave () { left.push(app.registry.count()) }
    })
  })
  const client = await rawConnection(t, a.url)
  client.write(upgradeHead('/watched/lobby'))
  await client.answers(1)
  await until(async () => await a.registry.groupCount('lobby') === 1)
  const startedAt = performance.now()
  client.write(clientFrame(8, Buffer.from([0x03, 0xe8])))
  await until(() => a.registry.count() === 0, { everyMs: 1 })
  t.equal(await a.registry.groupCount('lobby'), 0)
  machine.within(t, performance.now() - startedAt, 1_500, 'gone at once')
  await until(() => left.length === 1)
  machine.within(t, performance.now() - startedAt, 4_000, 'the callback ran')
  await until(() => client.socket.destroyed || client.over)
})

t.test('others are told at once of a framed client that the application closes, unless it is to come back', async t => {
  const a = await startInstance(t, {
    presenceGraceMs: 400,
    routes: app => app.wsRoom('/present/:room', { auth: false, group: ({ room }) => room, presence: true })
  })
  const framed = async (): Promise<ReturnType<typeof connect>> => {
    const client = connect(t, `${a.url}/present/lobby`, { protocols: 'wsg.v1' })
    await client.opened
    client.send('{"type":"hello"}')
    await client.nextWhere(message => String(message).includes('"members"'))
    return client
  }
  const watcher = await framed()
  for (const [code, isAway] of [[4_001, false], [1_012, true]] as const) {
    const known = new Set(a.registry.all())
    await framed()
    const [other] = a.registry.all().filter(connection => !known.has(connection))
    await watcher.nextWhere(message => String(message).includes('"join"'))
    machine.restart()
    const startedAt = performance.now()
    other?.close(code)
    await watcher.nextWhere(message => String(message).includes('"leave"'))
    const took = performance.now() - startedAt
    if (isAway) t.ok(took >= 390, `${code}: ${took.toFixed()} ms`)
    else machine.within(t, took, 390, String(code))
  }
})

t.test('a shutdown waits for the onDisconnect of those that left before it', async t => {
  let done = false
  const a = await startInstance(t, {
    closeGraceMs: 5_000,
    routes: app => app.wsRoom('/slow/:room', {
      auth: false,
      group: ({ room }) => room,
      onJoin: connection => connection.send('joined'),
      async onLeave () {
        await new Promise(resolve => setTimeout(resolve, 300))
        done = true
      }
    })
  })
  const client = connect(t, `${a.url}/slow/lobby`)
  await client.next()
  a.registry.all()[0]?.close()
  await client.closed
  t.equal(a.registry.count(), 0)
  await a.close()
  t.equal(done, true)
})
