import t from 'tap'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { logEvents } from '../../lib/logging.ts'
import { connect, upgradeStatus } from '../helpers/client.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { serve, service, type LogLine } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const root = join(import.meta.dirname, '..', '..')

t.test('the operations page has every event and no other, with its level', async (t) => {
  const page = readFileSync(join(root, 'docs', 'operations.md'), 'utf8')
  const [, section = ''] = page.split('## Log lines')
  const rows = [...section.matchAll(/^\| `(\w+)` \| (\w+) \|/gm)].map(([, event = '', level = '']) => [event, level] as const)
  t.strictSame(Object.fromEntries(rows), Object.fromEntries(Object.entries(logEvents).map(([event, [level]]) => [event, level])))
})

t.test('whatever the library logs has an event; debug lines are for those who look for something', async (t) => {
  const files = readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('.ts'))
  t.ok(files.length > 100)
  const bare = files.filter(name => /\blog\.(info|warn|error|fatal)\(/.test(readFileSync(join(root, 'lib', name), 'utf8')))
  t.strictSame(bare, [])
})

t.test('a flood of bad tokens, and one of messages that fail, write a few lines', async (t) => {
  const authenticate = (token: string): never => { throw new Error(`no such token: ${token}`) }
  const { url, logs } = await serve(t, { authenticate }, app => {
    app.wsRoom('/fails', { auth: false, group: () => 'all', onMessage () { throw new Error('a bug') } })
    app.wsRoom('/guarded', { group: () => 'all' })
  })
  const told = (event: string): readonly LogLine[] => logs.filter(line => line.event === event)
  for (let i = 0; i < 40; i++) await upgradeStatus(`${url}/guarded`, { headers: { authorization: 'Bearer bad' } })
  t.equal(told('token_refused').length, 10)
  t.match(told('token_refused')[0], { level: 30, suppressed: undefined, reason: 'Error: no such token: ***' })

  const failing = Array.from({ length: 40 }, () => connect(t, `${url}/fails`))
  for (const { ws } of failing) ws.on('open', () => ws.send('x'))
  await Promise.all(failing.map(async ({ closed }) => await closed))
  t.ok(told('on_message_failed').length < 20, `${told('on_message_failed').length} lines of 40`)
  t.equal(logs.filter(({ level, event }) => level >= 40 && event !== 'on_message_failed').length, 0, 'nothing else is told of each')
})

t.test('refused upgrades write nothing at all where Fastify writes no line for each request', async (t) => {
  const { app, logs, listen } = await service(t, { authenticate: () => null, limits: { connections: 1 } }, { disableRequestLogging: true })
  app.wsRoom('/open', { auth: false, group: () => 'all' })
  app.wsRoom('/guarded', { group: () => 'all' })
  const url = (await listen()).replace('http:', 'ws:')
  const before = logs.length
  const refusals = async (path: string): Promise<Set<number | undefined>> => {
    const requests = Array.from({ length: 20 }, async () => await upgradeStatus(url + path, { headers: { authorization: 'Bearer bad' } }))
    return new Set((await Promise.all(requests)).map(({ statusCode }) => statusCode))
  }
  t.strictSame([...await refusals('/guarded'), ...await refusals('/nowhere')], [401, 404])
  await connect(t, `${url}/open`).opened
  t.strictSame([...await refusals('/open')], [503])
  t.strictSame(logs.slice(before), [])
})

t.test('an outage, and a drain, are told from their beginning to their end', async (t) => {
  const redis = await startRedis(t)
  const { registry, logs } = await serve(t, { redis: redis.url, operationTimeoutMs: 500 }, () => {})
  const told = (event: string): LogLine | undefined => logs.find(line => line.event === event)
  await until(() => told('ready') !== undefined)
  await redis.restart()
  await until(() => told('backplane_up') !== undefined)
  t.match(told('backplane_not_up'), { level: 40, instanceId: registry.instanceId, problems: [String] })
  await registry.drain({ overMs: 10 })
  t.match([told('drain_started'), told('drained')], [{ connections: 0, overMs: 10 }, { connections: 0 }])
})
