import t from 'tap'
import { randomBytes } from 'node:crypto'
import type { Envelope, Target } from '../../lib/backplane/backplane.ts'
import { decode, encode } from '../../lib/backplane/redis/envelope.ts'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { byRoom, crowd, everyoneHears } from '../helpers/crowd.ts'
import { messageEnvelope } from '../helpers/envelopes.ts'
import { closeClean, exact, startInstances, type Instance } from '../helpers/instance.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

const keys = new Keys('wsg:')
const lobby: Target = { kind: 'group', name: 'lobby' }
const valid = messageEnvelope('', { origin: 'Stranger01', sequence: 7 })
const dropped = 'dropped a message from Redis that is not an envelope of this package'

function changed (bytes: Buffer, at: number, value: number): Buffer {
  const copy = Buffer.from(bytes)
  copy[at] = value
  return copy
}

/** Everything that a stranger, a broken peer or a later version may put on a channel. */
function poison (): Buffer[] {
  const whole = [
    encode(valid, lobby),
    encode({ ...valid, except: ['Stranger01.1', 'Stranger01.2'] }, lobby),
    encode({ ...valid, kind: 'request', command: '{"id":1,"op":"groups","connectionId":"x"}' }, { kind: 'instance', name: 'x' })
  ]
  return [
    ...Array.from({ length: 400 }, (_, index) => randomBytes(index % 65)),
    ...Array.from({ length: 200 }, (_, index) => Buffer.concat([Buffer.of(0xd1, 1), randomBytes(index % 63)])),
    ...whole.flatMap(bytes => Array.from(bytes, (_, length) => bytes.subarray(0, length))),
    ...[0, 2, 3, 255].map(version => changed(whole[0] ?? Buffer.of(), 1, version)),
    ...[0, 2, 3, 6, 255].map(type => changed(whole[0] ?? Buffer.of(), 24, type)),
    ...[0x40, 0x80, 0xc0, 0xff].map(flags => changed(whole[0] ?? Buffer.of(), 25, flags)),
    // 255 names of which only the first byte is there, and a command that is said to be 4 GiB long
    Buffer.concat([changed(whole[0] ?? Buffer.of(), 25, 2), Buffer.alloc(3, 255)]),
    Buffer.concat([changed(whole[0] ?? Buffer.of(), 24, 4), Buffer.alloc(8, 255)]),
    changed(whole[0] ?? Buffer.of(), 38, 255)
  ]
}

t.test('random bytes, cut envelopes and those of other versions are counted, logged once and dropped, and service goes on', async t => {
  const redis = await startRedis(t)
  const instances = await startInstances(t, 2, { redisUrl: redis.url }) as [Instance, Instance]
  const rooms = ['lobby', 'lobby', 'lobby,den']
  const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, rooms, { user: () => 'someone' })))).flat()
  const everyone = byRoom([...rooms, ...rooms], guests)
  await exact(instances)

  const batch = poison()
  const unknown = batch.filter(bytes => decode(bytes) === undefined).length
  t.ok(unknown > 600, `${unknown} of ${batch.length} are no envelopes`)
  const channels = await redis.channels()
  t.equal(channels.length, 6, 'two groups, a user, two inboxes and one for all')
  const taken = new Map<string, number>(instances.map(({ id }) => [id, 0]))
  for (const channel of channels) {
    for (const bytes of batch) await redis.admin.publish(channel, bytes)
    for (const { id } of instances) if (!channel.includes('c:i:') || channel.endsWith(id)) taken.set(id, (taken.get(id) ?? 0) + unknown)
  }
  for (const instance of instances) {
    await until(async () => (await instance.ask('stats')).envelopesUnknown === taken.get(instance.id), { what: 'all of it to be counted' })
    t.equal((await instance.ask('logged', dropped)).length, 1, 'one line in the log')
    t.strictSame(await instance.ask('faults'), [], 'nothing threw')
  }
  t.ok(guests.every(({ closed }) => !closed), 'nobody was disconnected')
  await exact(instances)
  await everyoneHears(t, instances, everyone, 'after')
  await closeClean(t, redis, instances)
})

t.test('requests and replies that make no sense are ignored, also while an answer is awaited', async t => {
  const redis = await startRedis(t)
  const instances = await startInstances(t, 2, { redisUrl: redis.url }) as [Instance, Instance]
  const [a, b] = instances
  const [here] = await crowd(t, a.port, ['lobby'])
  const [there] = await crowd(t, b.port, ['lobby'])
  await exact(instances)
  const inbox: Target = { kind: 'instance', name: a.id }
  const send = async (kind: Envelope['kind'], command: string, origin = 'Stranger01'): Promise<void> => {
    await redis.admin.publish(keys.channel(inbox), encode({ ...valid, kind, command, origin, target: inbox }, inbox))
  }

  const local = here?.id ?? ''
  for (const command of [
    '', '{', 'null', '[]', '7', '"x"', '{}', '{"id":"1"}', '{"id":999}', '{"id":999,"op":"nothing"}', '{"id":999,"op":"constructor"}',
    '{"id":999,"op":"join"}',
    '{"id":999,"op":"send","connectionId":"__proto__"}', '{"id":999,"op":"send","connectionId":{}}', '{"id":999,"op":"disconnectUser"}',
    '{"id":999,"op":"disconnectUser","userId":[]}',
    `{"id":999,"op":"join","connectionId":"${local}"}`, `{"id":999,"op":"join","connectionId":"${local}","group":{}}`,
    `{"id":999,"op":"join","connectionId":"${local}","group":""}`,
    `{"id":999,"op":"leave","connectionId":"${local}","group":null}`,
    `{"id":999,"op":"disconnect","connectionId":"${local}","code":"x","reason":5}`,
    `{"id":999,"op":"disconnect","connectionId":"${local}","code":1006}`, `{"id":999,"op":"nothing","connectionId":"${local}"}`
  ]) {
    await send('request', command)
    await send('request', command, a.id)
    await send('request', command, '\u00ff'.repeat(255))
    await send('reply', command)
  }

  // The other instance hangs, so that the request stays open while nonsense arrives for it.
  process.kill(b.pid, 'SIGSTOP')
  const nonsense = ['null', '{}', '{"code":5}', '{"code":"toString"}', '{"code":null,"detail":{}}', '"x"', '[]']
  const asked = nonsense.map(async () => await a.ask('time', 'sendTo', [there?.id ?? '', 'hello']))
  await a.ask('stats')                                          // they are on their way
  for (const [index, error] of nonsense.entries()) await send('reply', `{"id":${index + 1},"error":${error}}`)
  const answers = (await Promise.all(asked)).flat()
  process.kill(b.pid, 'SIGCONT')
  t.strictSame(answers.map(({ code }) => code), nonsense.map(() => 'WSG_TIMEOUT'), 'an unknown error is an unknown outcome')

  t.strictSame(await a.ask('faults'), [], 'nothing threw')
  t.notOk(here?.closed, 'nobody was disconnected')
  await until(async () => (await b.ask('health')).status === 'up')
  t.equal(await a.ask('sendTo', there?.id ?? '', 'still works'), true)
  await until(() => there?.messages.includes('still works'))
  await exact(instances)
  await closeClean(t, redis, instances)
})

t.test('an except list with ids that no connection can have hides nothing and breaks nothing', async t => {
  const impossible = ['x'.repeat(256), 'x'.repeat(70_000), '', 'ü€🦊', '\0']
  const decoded = decode(encode({ ...valid, except: [...impossible, 'Stranger01.1'], payload: Buffer.from('hello') }, lobby))
  t.equal(decoded?.payload.toString(), 'hello')
  t.ok(decoded?.except.includes('Stranger01.1'))
})
