import t from 'tap'
import { WebSocket } from 'ws'
import { connect } from '../../lib/client/index.ts'
import { streamsOf, type StreamView } from '../../lib/client/streams.ts'
import { silentMs } from '../../lib/backplane/backplane.ts'
import { startInstance } from '../helpers/instance.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

t.test('readers of a stream are told when the instance that makes it was killed, and keep its text', async t => {
  const redis = await startRedis(t)
  const [producer, other] = await Promise.all([1, 2].map(async () => await startInstance(t, { redisUrl: redis.url })))
  if (producer === undefined || other === undefined) throw new Error('two instances were started')
  const read = async (quietMs: number): Promise<() => StreamView | undefined> => {
    const client = connect(`${other.url.replace('http', 'ws')}/ws/lobby`, { WebSocket })
    t.teardown(() => client.close())
    const streams = streamsOf(client, { quietMs })
    await until(() => client.groups.includes('lobby'))
    return () => streams.get('lobby', 'answer')
  }
  // One reader asks soon; the other is told what the first one found out.
  const [asking, waiting] = [await read(200), await read(600_000)]
  await producer.ask('openStream', 'lobby', 'answer', 'so far')
  await until(() => asking()?.text === 'so far' && waiting()?.text === 'so far')

  await producer.kill()
  t.equal(asking()?.state, 'open', 'it may come back')
  const [head = ''] = (await redis.keys()).filter(key => key.includes(':sh:'))
  const beat = Number(await redis.admin.hget(head, 'beat'))
  // As if so much time had passed.
  await redis.admin.hset(head, 'beat', beat - silentMs)
  for (const view of [asking, waiting]) {
    await until(() => view()?.state === 'failed')
    t.match(view(), { text: 'so far', error: { code: 'WSG_STREAM_LOST' } })
  }
  // Who comes later reads the same.
  const late = await read(600_000)
  await until(() => late()?.state === 'failed')
  t.match(late(), { text: 'so far', error: { code: 'WSG_STREAM_LOST' } })
})
