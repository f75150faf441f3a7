import t from 'tap'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { onEveryCluster } from '../helpers/app.ts'
import { forkProgram } from '../helpers/child.ts'
import { connect, upgradeStatus } from '../helpers/client.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { serve } from '../helpers/service.ts'
import { openFramed } from '../features/framed/framed-client.ts'
import { until } from '../helpers/until.ts'
import groupsHealth from '../../lib/operations/health.ts'
import { resolveOptions } from '../../lib/options/resolve.ts'
import { memoryCluster } from '../../plugin.ts'

noUnhandled(t)
const machine = watchMachine(t)
const redis = await startRedis(t)

onEveryCluster(t, redis, 'a drain closes connections one after another, while those that are left go on', async (t, cluster) => {
  const [a, b] = [await cluster.start({ routes: app => { void app.register(groupsHealth) } }), await cluster.start()]
  const witness = await b.enter('room')
  const clients = await Promise.all(Array.from({ length: 40 }, async () => await a.enter('room')))
  const closedAt: number[] = []
  machine.restart()
  const startedAt = performance.now()
  for (const { client } of clients) void client.closed.then(() => closedAt.push(performance.now() - startedAt))

  const overMs = 2_000
  const drained = a.registry.drain({ overMs })
  t.equal(a.registry.count(), 40, 'nobody is closed at once')
  t.match(a.registry.health(), { ready: false, status: 'closing' })
  t.equal((await a.app.inject('/readyz')).statusCode, 503)
  t.match(await upgradeStatus(`${a.url}/ws`), { statusCode: 503, headers: { 'retry-after': '1' } }, 'another instance takes it at once')
  t.equal(a.registry.drain({ overMs }) instanceof Promise, true)

  await until(() => closedAt.length >= 5)
  const stay = clients.filter(({ connection }) => !connection.closed)
  t.ok(stay.length > 0, 'most are still here')
  await a.registry.broadcastToGroup('room', 'still here')
  await until(() => witness.client.messages.includes('still here'))
  await drained
  t.equal(a.registry.count(), 0)
  await until(() => closedAt.length === 40)
  for (const { client } of clients) t.equal((await client.closed).code, 1012)
  t.ok(stay.filter(({ client }) => client.messages.includes('still here')).length > 0)
  // Spread over the window: a machine that stalls gathers some of them.
  const spreadMs = Math.max(...closedAt) - Math.min(...closedAt)
  t.ok(spreadMs > Math.max(overMs / 3 - machine.deniedMs, overMs / 10), `over a good part of the window: ${Math.round(spreadMs)} ms`)
  const most = Math.max(...closedAt.map(from => closedAt.filter(at => at >= from && at < from + overMs / 10).length))
  const eachMs = overMs / 2 / 40
  machine.within(t, most * eachMs, 30 * eachMs, `at most ${most} of 40 within a tenth of the window, which are due over`)
  t.equal(await b.registry.groupCount('room'), 1)
})

t.test('a client that does not answer is gone when the window ends', async (t) => {
  const { registry, url } = await serve(t, { closeGraceMs: 100 }, app => { app.wsRoom('/ws/:room', { auth: false }) })
  const deaf = connect(t, `${url}/ws/room`)
  await deaf.opened
  await until(() => registry.count() === 1)
  deaf.ws.pause()
  const startedAt = performance.now()
  await registry.drain({ overMs: 300 })
  t.equal(registry.count(), 0)
  machine.within(t, performance.now() - startedAt, 2_000, 'sooner than a close that nobody answers')
})

t.test('a window of no time closes everybody at once', async (t) => {
  const { registry, url } = await serve(t, {}, app => { app.wsRoom('/ws/:room', { auth: false }) })
  const clients = Array.from({ length: 5 }, () => connect(t, `${url}/ws/room`))
  await Promise.all(clients.map(async ({ opened }) => await opened))
  await until(() => registry.count() === 5)
  await registry.drain({ overMs: 0 })
  t.equal(registry.count(), 0)
  for (const client of clients) t.equal((await client.closed).code, 1012)
})

t.test('closing the application ends a drain early', async (t) => {
  const { app, registry, url } = await serve(t, { closeGraceMs: 200 }, app => { app.wsRoom('/ws/:room', { auth: false }) })
  const clients = Array.from({ length: 5 }, () => connect(t, `${url}/ws/room`))
  await until(() => registry.count() === 5)
  const drained = registry.drain({ overMs: 3_600_000 })
  await app.close()
  await drained
  for (const client of clients) t.equal((await client.closed).code, 1012)
})

t.test('who is drained and comes back elsewhere was never gone to the others', async (t) => {
  const shared = memoryCluster()
  const start = async (): ReturnType<typeof serve> => await serve(t, { backplane: shared.backplane(), presenceGraceMs: 60_000 }, app => {
    app.wsRoom('/:room', { auth: { required: false }, group: ({ room }) => room, presence: true })
  })
  const [a, b] = [await start(), await start()]
  const witness = await openFramed(t, `${b.url}/room`, { token: 'bob' })
  await witness.nextOf('members')
  const ann = await openFramed(t, `${a.url}/room`, { token: 'ann' })
  await ann.nextOf('joined')
  const { session } = ann.welcome
  const drained = a.registry.drain({ overMs: 50 })
  const { afterMs } = await ann.nextOf('reconnect')
  t.ok(Number(afterMs) <= 100, `the window spreads the clients, a hint adds no more than a step to it: ${String(afterMs)} ms`)
  ann.raw.terminate()
  await drained
  const back = await openFramed(t, `${b.url}/room`, { token: 'ann', hello: { session } })
  await back.nextOf('joined')
  await until(() => witness.frames.some(({ type, event }) => type === 'presence' && event === 'join'))
  const events = witness.frames.filter(({ type }) => type === 'presence').map(({ event }) => event)
  t.notOk(events.includes('leave'), events.join(' '))
})

t.test('a wrong window is refused, and nothing is drained', async (t) => {
  const { registry } = await serve(t, {}, () => {})
  for (const overMs of [-1, 1.5, NaN, undefined, '20']) {
    await t.rejects(registry.drain({ overMs: overMs as number }), { code: 'WSG_OPTION_INVALID' })
  }
  t.equal(registry.health().ready, true)
})

const page = (name: string): string => readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8')
const [, manifest = ''] = /^```yaml\n(.*?kind: Deployment.*?)^```$/ms.exec(page('deploy.md')) ?? []
const [, program = ''] = /^```ts\n(import closeWithGrace.*?)^```$/ms.exec(page('operations.md')) ?? []
const numberIn = (text: string, pattern: RegExp): number => Number((pattern.exec(text)?.[1] ?? 'none').replaceAll('_', ''))
const [, preStop = ''] = /^ +preStop: \{ exec: \{ command: \[(.*?)\] \} \}/m.exec(manifest) ?? []
const preStopCommand = preStop.split(',').map(part => part.trim().replace(/^'(.*)'$/, '$1'))

t.test('the pod of docs/deploy.md fits the program of docs/operations.md', async (t) => {
  const probe = (name: string): RegExp => new RegExp(`^ +${name}: \\{ httpGet: \\{ path: (\\S+), port: (\\d+) \\}`, 'm')
  const probes = ['readinessProbe', 'livenessProbe'].map(name => probe(name).exec(manifest) ?? [])
  const { app } = await serve(t, {}, app => { void app.register(groupsHealth) })
  for (const [, path = '', port] of probes) {
    t.equal((await app.inject(path)).statusCode, 200, path)
    t.equal(Number(port), numberIn(program, /listen\(\{ port: (\d+)/), 'the port that it listens on')
  }
  const { closeGraceMs } = resolveOptions()
  const windowMs = numberIn(program, /drain\(\{ overMs: ([\d_]+) \}\)/)
  const delayMs = numberIn(program, /delay: ([\d_]+)/)
  const pauseMs = Number(preStopCommand.at(-1)) * 1_000
  const graceMs = numberIn(manifest, /terminationGracePeriodSeconds: (\d+)/) * 1_000
  // Closing takes the grace of the clients and a second at most, as docs/reference.md says of closeGraceMs.
  t.ok(delayMs >= windowMs + closeGraceMs + 1_000, 'close-with-grace does not cut the drain short')
  t.ok(graceMs >= pauseMs + delayMs, 'nor does the kubelet')
  const period = numberIn(manifest, /readinessProbe: .*periodSeconds: (\d+)/)
  t.ok(period * 1_000 < pauseMs, 'a probe comes while preStop waits')
})

t.test('as the kubelet ends a pod: preStop, then SIGTERM, which drains, closes, and ends the process', async (t) => {
  const child = forkProgram(fileURLToPath(new URL('./graceful-program.ts', import.meta.url)))
  t.teardown(() => child.kill('SIGKILL'))
  const gone = once(child, 'exit')
  const [url] = await once(child, 'message') as [string]
  const clients = Array.from({ length: 10 }, () => connect(t, `${url}/ws/room`))
  await Promise.all(clients.map(async client => await client.opened))
  const [command = '', ...args] = preStopCommand
  const paused = once(spawn(command, args), 'exit')
  t.equal((await fetch(`${url}/readyz`)).status, 200, 'meanwhile it serves')
  const late = connect(t, `${url}/ws/room`)
  await late.opened
  t.strictSame(await paused, [0, null], 'the command is there, and ends well')
  t.equal(clients.filter(({ ws }) => ws.readyState === ws.OPEN).length, 10)
  child.kill('SIGTERM')
  await until(async () => (await fetch(`${url}/readyz`)).status === 503)
  t.equal((await fetch(`${url}/livez`)).status, 200, 'it is drained, not dead')
  for (const client of [...clients, late]) t.equal((await client.closed).code, 1012)
  t.strictSame(await gone, [0, null])
})
