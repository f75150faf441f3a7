// What a later version may send beside this one: in a channel and in a log it is counted and passed over, and nothing else is lost.
import t from 'tap'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { decode, encode } from '../../lib/backplane/redis/envelope.ts'
import { redisCluster } from '../helpers/app.ts'
import { messageEnvelope } from '../helpers/envelopes.ts'
import { append } from '../../lib/backplane/redis/log/scripts.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { until } from '../helpers/until.ts'
import { openFramed, type FramedClient } from '../features/framed/framed-client.ts'
import { appendQuietly } from './log-rig.ts'

noUnhandled(t)
const keys = new Keys('wsg:')
const room = { kind: 'group', name: 'room' } as const

interface Change {
  /** What the script appends. */
  readonly logged: { readonly kind?: number, readonly flags?: number, readonly lua?: string }
  /** The same change of what is sent without a log. */
  readonly sent: (bytes: Buffer) => void
}

/** How an envelope of a later version may differ. */
const changes: Readonly<Record<string, Change>> = {
  'another version': { logged: { lua: append.lua.replaceAll("'\\209\\1'", "'\\209\\2'") }, sent: bytes => { bytes[1] = 2 } },
  'another type': { logged: { kind: 200 }, sent: bytes => { bytes[24] = 200 } },
  'a flag that must be understood': { logged: { flags: 0x40 }, sent: bytes => { bytes[25] = (bytes[25] ?? 0) | 0x40 } }
}

/** What a client was sent through its group. */
const texts = ({ frames }: FramedClient): string[] => {
  return frames.filter(({ type, group }) => type === 'message' && group === room.name).map(({ data }) => String(data))
}

t.test('envelopes of a later version in a log and its channel', async t => {
  for (const [what, { logged }] of Object.entries(changes)) {
    await t.test(what, async t => {
      const { redis, start, close } = await redisCluster(t)
      const fromTheFuture = async (heard = true): Promise<void> => {
        const bytes = await appendQuietly(redis.admin, room.name, 'from the future', logged)
        t.equal(decode(bytes), undefined, 'this version does not know it')
        if (!heard) return
        t.equal(await redis.admin.publish(keys.channel(room), bytes), 2, 'both instances hear it')
      }
      const one = await start()
      const two = await start()
      const raw = await one.enter(room.name)
      const framed = await openFramed(t, `${two.url}/ws/${room.name}`)
      await framed.nextOf('message')
      const send = async (text: string): Promise<void> => { await two.registry.broadcastToGroup(room.name, text) }
      await send('1')
      const first = await framed.nextOf('message', { data: '1' })
      for (let n = 0; n < 3; n++) await fromTheFuture()
      await send('2')
      await fromTheFuture()
      await fromTheFuture()
      await send('3')
      await fromTheFuture(false)
      await fromTheFuture(true)
      await fromTheFuture(false)
      await send('4')
      await until(() => raw.client.messages.includes('4') && texts(framed).includes('4'))
      t.strictSame(raw.client.messages.slice(1), ['1', '2', '3', '4'], 'a raw client')
      t.strictSame(texts(framed), ['1', '2', '3', '4'], 'a client of the protocol')
      for (const { registry } of [one, two]) {
        t.match(registry.stats(), { envelopesUnknown: 8 }, 'each is counted once, also those that were only met in the log')
        t.match(registry.health(), { status: 'up' })
      }

      const { messages, gap } = await one.registry.history(room.name)
      t.strictSame(messages.map(({ data }) => String(data)), ['1', '2', '3', '4'], 'a page of history')
      t.notOk(gap)

      await fromTheFuture()
      const hello = { session: framed.welcome.session, resume: { [room.name]: first.position } }
      framed.raw.close()
      const again = await openFramed(t, `${one.url}/ws/${room.name}`, { hello })
      await again.nextOf('message', { data: '4' })
      await send('5')
      await again.nextOf('message', { data: '5' })
      t.strictSame(texts(again), ['2', '3', '4', '5'], 'a client that comes back')
      t.strictSame(again.frames.filter(({ type }) => type === 'gap'), [], 'no gap is told')
      await close()
    })
  }
})

t.test('volatile messages, presence and requests of a later version', async t => {
  const { redis, start, close } = await redisCluster(t)
  const one = await start()
  const { client } = await one.enter(room.name)
  const target = { kind: 'instance', name: one.id } as const
  const envelope = messageEnvelope('from the future', { target: room })
  const known = [
    [encode(envelope, room), keys.channel(room)],
    [encode({ ...envelope, kind: 'presence', command: '{}' }, room), keys.channel(room)],
    [encode({ ...envelope, kind: 'request', command: '{}', target }, target), keys.channel(target)]
  ] as const
  let sent = 0
  for (const { sent: change } of Object.values(changes)) {
    for (const [original, channel] of known) {
      const bytes = Buffer.from(original)
      change(bytes)
      t.equal(await redis.admin.publish(channel, bytes), 1)
      sent++
    }
  }
  await one.registry.broadcastToGroup(room.name, 'known')
  await until(() => client.messages.includes('known'))
  await until(() => one.registry.stats().envelopesUnknown === sent)
  t.strictSame(client.messages.slice(1), ['known'])
  await close()
})
