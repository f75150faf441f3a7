import t from 'tap'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { memoryCluster } from '../../../lib/backplane/memory/index.ts'
import type { WebsocketGroupsOptions } from '../../../lib/options/types.ts'
import { connect } from '../../helpers/client.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { startRedis } from '../../helpers/redis.ts'
import { serve } from '../../helpers/service.ts'

const redis = await startRedis(t)
const kinds = {
  memory: () => {
    const cluster = memoryCluster()
    return (): WebsocketGroupsOptions => ({ backplane: cluster.backplane() })
  },
  redis: () => (): WebsocketGroupsOptions => ({ redis: redis.url, keyPrefix: `t${Math.random()}:` })
}

async function start (t: Test, options: WebsocketGroupsOptions): Promise<{ app: FastifyInstance, url: string }> {
  const { app, url } = await serve(t, options, app => {
    app.get<{ Params: { room: string } }>('/ws/:room', { websocket: true }, app.wsHandler({
      async onConnect (connection, request) {
        const { since, history } = (request.query ?? {}) as { since?: string, history?: string }
        const result = await app.registry.join(
          connection, connection.params.room ?? '', { ...(since ? { since } : {}), ...(history ? { history: Number(history) } : {}) }
        )
        connection.sendJson(result)
      },
      onMessage () {}
    }))
  })
  return { app, url: `${url}/ws` }
}

for (const [kind, makeKind] of Object.entries(kinds)) {
  t.test(kind, async t => {
    noUnhandled(t)
    const options = makeKind()
    const prefix = `p${Math.floor(Math.random() * 1e6)}:`
    const two = async (t: Test): Promise<Array<{ app: FastifyInstance, url: string }>> => [
      await start(t, { ...options(), ...(kind === 'redis' ? { keyPrefix: prefix } : {}) }),
      await start(t, { ...options(), ...(kind === 'redis' ? { keyPrefix: prefix } : {}) })
    ]
    const [a, b] = await two(t) as [{ app: FastifyInstance, url: string }, { app: FastifyInstance, url: string }]

    await t.test('a broadcast resolves with its position; a raw client that comes back with it elsewhere gets what it missed', async t => {
      const first = await a.app.registry.broadcastToGroup('lobby', 'one')
      t.match(first.position, /^[\w-]{24}$/)
      await b.app.registry.broadcastToGroup('lobby', 'two')
      await a.app.registry.broadcastToGroup('lobby', Buffer.from([3]))
      const client = connect(t, `${b.url}/lobby?since=${first.position}`)
      t.equal(await client.next(), 'two')
      t.same(await client.next(), Buffer.from([3]))
      t.match(JSON.parse(String(await client.next())), { scope: 'cluster', recovered: true, position: first.position })
      await a.app.registry.broadcastToGroup('lobby', 'four')
      t.equal(await client.next(), 'four')
    })

    await t.test('history on join gives the latest messages first', async t => {
      const client = connect(t, `${b.url}/lobby?history=2`)
      t.same(await client.next(), Buffer.from([3]))
      t.equal(await client.next(), 'four')
      t.match(JSON.parse(String(await client.next())), { scope: 'cluster' })
    })

    await t.test('history() reads after a position, limited, and backwards', async t => {
      const { messages, position, more } = await a.app.registry.history('lobby')
      t.same(messages.map(({ data }) => data), ['one', 'two', Buffer.from([3]), 'four'])
      t.equal(messages.at(-1)?.position, position)
      t.equal(more, false)
      const after = await a.app.registry.history('lobby', { since: messages[0]?.position ?? '', limit: 2, reverse: true })
      t.same(after.messages.map(({ data }) => data), ['four', Buffer.from([3])], 'newest first, from the newest on')
      t.equal(after.more, true)
      await t.rejects(a.app.registry.history('lobby', { since: 'x' }), { code: 'WSG_POSITION_INVALID' })
    })

    await t.test('clients that resume while messages pour in get each exactly once, in order', async t => {
      const sent: string[] = []
      const start = await a.app.registry.broadcastToGroup('busy', '0')
      let n = 0
      let stop = false
      const pouring = (async () => {
        while (!stop) {
          const text = String(++n)
          sent.push(text)
          await (n % 2 === 0 ? a : b).app.registry.broadcastToGroup('busy', text)
          if (n >= 90) stop = true
        }
      })()
      const clients = []
      for (let i = 0; i < 20; i++) {
        clients.push(connect(t, `${(i % 2 === 0 ? a : b).url}/busy?since=${start.position}`))
        await new Promise(resolve => setTimeout(resolve, 1))
      }
      await pouring
      await a.app.registry.broadcastToGroup('busy', 'end')
      for (const client of clients) {
        const got: string[] = []
        for (;;) {
          const text = String(await client.next())
          if (text === 'end') break
          if (!text.startsWith('{')) got.push(text)
        }
        t.same(got, sent)
      }
    })

    await t.test('one message to several groups with logs reaches a connection in all of them once', async t => {
      const client = connect(t, `${b.url}/g1`)
      await client.next()
      const [connection] = b.app.registry.filter(one => one.groups.includes('g1'))
      t.ok(connection)
      if (connection !== undefined) for (const group of ['g2', 'g3']) await b.app.registry.join(connection, group)
      for (let n = 0; n < 20; n++) {
        const { positions } = await a.app.registry.broadcastToGroup(n % 2 === 0 ? ['g1', 'g2', 'g3'] : ['g3', 'g1'], String(n))
        t.same(Object.keys(positions ?? {}).sort(), n % 2 === 0 ? ['g1', 'g2', 'g3'] : ['g1', 'g3'])
      }
      for (let n = 0; n < 20; n++) t.equal(await client.next(), String(n))
    })

    await t.test('a limit of history is a positive integer', async t => {
      for (const limit of [0, -1, 1.5, NaN, '5' as unknown as number]) {
        await t.rejects(a.app.registry.history('v', { limit }), { code: 'WSG_OPTION_INVALID' })
      }
    })

    await t.test('volatile broadcasts have no position and are not kept; an idempotency key stores once', async t => {
      t.equal((await a.app.registry.broadcastToGroup('v', 'x', { volatile: true })).position, undefined)
      const first = await a.app.registry.broadcastToGroup('v', 'pay', { idempotencyKey: 'k' })
      const again = await b.app.registry.broadcastToGroup('v', 'pay', { idempotencyKey: 'k' })
      t.equal(again.position, first.position)
      t.equal(again.duplicate, true)
      t.same((await b.app.registry.history('v')).messages.map(({ data }) => data), ['pay'])
      await t.rejects(
        a.app.registry.broadcastToGroup('v', 'x', { volatile: true, idempotencyKey: 'k' }), { code: 'WSG_IDEMPOTENCY_INVALID' }
      )
    })
  })
}
