// A client that was in several groups comes back to all of them. What went to more than one of its groups stands in several logs.
import t from 'tap'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { startRedis } from '../../helpers/redis.ts'
import { openFramed, type FramedClient } from '../framed/framed-client.ts'
import { serve, type Served } from '../../helpers/service.ts'

noUnhandled(t)
const redis = await startRedis(t)
const groups = ['one', 'two', 'three']

function routes (app: Served['app']): void {
  app.get('/', { websocket: true }, app.wsHandler({
    async onConnect (connection) { for (const group of groups) await app.registry.join(connection, group) },
    onMessage () {}
  }))
}

const received = ({ frames }: FramedClient, group?: string): string[] => frames.filter(
  frame => frame.type === 'message' && (group === undefined || frame.group === group)
).map(({ data }) => String(data))

t.test('each message once, those of each group in their order, and where it got to in all of its groups', async t => {
  const options = {
    redis: redis.url,
    keyPrefix: `${process.hrtime.bigint()}:`,
    operationTimeoutMs: 10_000,
    log: { maxMessages: 10_000, maxBytes: 33_554_432, ttlMs: 300_000 }
  }
  const [here, elsewhere] = [await serve(t, options, routes), await serve(t, options, routes)]
  const before = await openFramed(t, here.url)
  const resume: Record<string, string> = {}
  const grants: Record<string, string> = {}
  for (const name of groups) {
    const { group, position, grant } = await before.nextOf('joined', { group: name })
    resume[String(group)] = String(position)
    grants[String(group)] = String(grant)
  }
  before.raw.terminate()
  const shared = Array.from({ length: 3_000 }, (_, n) => `shared ${n}`)
  const sends: Array<Promise<unknown>> = []
  for (const [n, text] of shared.entries()) {
    sends.push(here.app.registry.broadcastToGroup(n % 3 === 0 ? groups : ['one', 'two'], text))
    if (n % 100 === 0) sends.push(...groups.map(async group => await here.app.registry.broadcastToGroup(group, `${group} ${n}`)))
  }
  await Promise.all(sends)
  const back = await openFramed(t, elsewhere.url, { hello: { session: before.welcome.session, resume, grants } })
  const total = shared.length + 3 * 30
  // The last one of the group that comes last.
  await back.nextOf('message', { data: 'three 2900' })
  await elsewhere.app.registry.broadcastToGroup(groups, 'end')
  await back.nextOf('message', { data: 'end' })
  const all = received(back)
  t.equal(all.length, new Set(all).size, 'nothing twice')
  t.equal(all.length, total + 1, 'and nothing is missing')
  t.strictSame(back.frames.filter(({ type }) => type === 'gap'), [])
  for (const group of groups) {
    t.strictSame(
      all.filter(text => text.startsWith(group)), Array.from({ length: 30 }, (_, n) => `${group} ${100 * n}`),
      `those to ${group} alone, in order`
    )
  }
  t.strictSame(all.filter(text => text.startsWith('shared')), shared, 'and those to several groups')

  const positions = Object.fromEntries(
    groups.map(group => [group, back.frames.findLast(frame => frame.group === group && 'position' in frame)?.position])
  )
  const again = await openFramed(t, here.url, { hello: { session: back.welcome.session, resume: positions, grants } })
  for (const group of groups) t.match(await again.nextOf('joined', { group }), { recovered: true })
  await here.app.registry.broadcastToGroup('three', 'the last')
  await again.nextOf('message', { data: 'the last' })
  t.strictSame(received(again), ['the last'], 'it was told how far it is in each group')
})
