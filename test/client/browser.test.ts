import t, { type Test } from 'tap'
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core'
import type { Client, ClientEvents } from '../../lib/client/index.ts'
import { memoryCluster } from '../../plugin.ts'
import { browserBinary } from '../../scripts/browser-binary.mjs'
import { buildClient } from '../../scripts/build-client.mjs'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { startForwarder, type Forwarder } from './forwarder.ts'
import { serveRoom, type Instance } from './instances.ts'

// The single-file client in a real Chromium, against the real plugin.

const executablePath = browserBinary()
const options = executablePath === undefined ? { skip: 'no Chromium on PATH and no CHROMIUM_BIN' } : {}
const quick = { heartbeatIntervalMs: 1_000 }

/** What the page keeps for the tests. */
interface Seen {
  readonly client: Client
  readonly log: Array<{ readonly name: keyof ClientEvents, readonly event: Record<string, unknown> }>
}
declare const seen: Seen

let browser: Browser | undefined
const folder = mkdtempSync(join(tmpdir(), 'page-'))
t.teardown(async () => {
  await browser?.close()
  rmSync(folder, { recursive: true })
})
if (executablePath !== undefined) {
  await buildClient(join(import.meta.dirname, '..', '..'), folder)
  browser = await chromium.launch({ executablePath, args: ['--no-sandbox'], ignoreDefaultArgs: ['--disable-back-forward-cache'] })
}

const html = `<!doctype html><title>page</title><script type="module">
  import { connect } from '/client.min.js'
  const log = []
  const client = connect(new URLSearchParams(location.search).get('url'), { backoff: { minMs: 50, maxMs: 400 }, storage: sessionStorage })
  for (const name of ['message', 'joined', 'gap', 'state', 'error', 'close']) {
    client.on(name, event => log.push({ name, event: { ...event, code: event.code } }))
  }
  globalThis.seen = { client, log }
</script>`

/** A page of its own origin, in a profile of its own, connected to the group `lobby` through `through`. */
async function openPage (t: Test, through: Forwarder): Promise<{ page: Page, context: BrowserContext, origin: string }> {
  const server = createServer((request, response) => {
    const script = request.url === '/client.min.js'
    response.setHeader('content-type', script ? 'text/javascript' : 'text/html')
    response.end(script ? readFileSync(join(folder, 'client.min.js')) : request.url === '/other' ? '<title>other</title>' : html)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  if (!browser) throw new Error('no browser')
  const context = await browser.newContext()
  t.teardown(async () => {
    await context.close()
    server.closeAllConnections()
  })
  const page = await context.newPage()
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  await page.goto(`${origin}/?url=ws://127.0.0.1:${through.port}/lobby`)
  await until(async () => (await groups(page)).includes('lobby'), { what: 'the page to be in the group' })
  return { page, context, origin }
}

const state = async (page: Page): Promise<string> => await page.evaluate(() => seen.client.state)
const groups = async (page: Page): Promise<readonly string[]> => await page.evaluate(() => seen.client.groups)
const events = async (page: Page, name: keyof ClientEvents): Promise<Array<Record<string, unknown>>> => await page.evaluate(
  name => seen.log.filter(one => one.name === name).map(({ event }) => event), name
)
const received = async (page: Page): Promise<number[]> => (await events(page, 'message')).map(({ data }) => Number(data))
const numbers = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1)

async function publish ({ app }: Instance, from: number, to: number): Promise<void> {
  for (let n = from; n <= to; n++) await app.registry.broadcastToGroup('lobby', String(n))
}

async function gotAll (t: Test, page: Page, count: number): Promise<void> {
  await until(async () => (await received(page)).length >= count, { timeoutMs: 60_000, what: `${count} messages` })
  t.strictSame(await received(page), numbers(count), 'each message once, in order')
  t.strictSame(await events(page, 'gap'), [])
}

async function two (t: Test): Promise<readonly [Instance, Instance]> {
  const cluster = memoryCluster()
  return [
    await serveRoom(t, { backplane: cluster.backplane(), ...quick }),
    await serveRoom(t, { backplane: cluster.backplane(), ...quick })
  ]
}

t.test('a page sends and receives', options, async (t) => {
  const [a] = await two(t)
  const { page } = await openPage(t, await startForwarder(t, a.port))
  const ack = await page.evaluate(async () => await seen.client.send('1'))
  t.match(ack, { position: /^[\w-]{24}$/ })
  await gotAll(t, page, 1)
  await page.evaluate(async () => await seen.client.send(new Uint8Array([0, 200, 255])))
  await until(async () => (await events(page, 'message')).length === 2)
  t.strictSame(
    await page.evaluate(() => [...seen.log.filter(({ name }) => name === 'message').at(-1)?.event.data as Uint8Array]), [0, 200, 255]
  )
  t.strictSame(await events(page, 'error'), [])
})

t.test('offline and online again: it says so, waits, comes back with the network and misses nothing', options, async (t) => {
  const [a, b] = await two(t)
  const through = await startForwarder(t, a.port)
  const { page, context } = await openPage(t, through)
  await publish(b, 1, 5)
  await context.setOffline(true)
  through.silence(true)
  await until(async () => await state(page) === 'offline')
  await publish(b, 6, 40)
  through.to(b.port)
  through.silence(false)
  await sleep(100)
  const attempts = (await events(page, 'state')).length
  await context.setOffline(false)
  await gotAll(t, page, 40)
  t.ok(attempts >= 2)
  t.equal(await state(page), 'open')
})

t.test('a network that falls silent is noticed without a word from the browser', options, async (t) => {
  const [a, b] = await two(t)
  const through = await startForwarder(t, a.port)
  const { page } = await openPage(t, through)
  await publish(b, 1, 3)
  await until(async () => (await received(page)).length === 3)
  through.silence(true)
  await until(async () => (await events(page, 'state')).some(({ reason }) => reason === 'no sign of life'), { timeoutMs: 60_000 })
  await publish(b, 4, 10)
  through.to(b.port)
  through.silence(false)
  await gotAll(t, page, 10)
})

t.test('an instance is killed under traffic: the other one takes over, exactly once and in order', options, async (t) => {
  const redis = await startRedis(t)
  const keyPrefix = 'browser:'
  const survivor = await serveRoom(t, { redis: redis.url, keyPrefix, ...quick })
  const script = join(folder, 'instance.ts')
  writeFileSync(script, `
    import { serveRoom } from ${JSON.stringify(join(import.meta.dirname, 'instances.ts'))}
    const { port } = await serveRoom({ teardown () {} }, { redis: '${redis.url}', keyPrefix: '${keyPrefix}' })
    process.send(port)
    process.on('disconnect', () => process.exit())`)
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
  const { NODE_OPTIONS: _, ...env } = process.env
  const victim: ChildProcess = fork(script, { cwd: join(import.meta.dirname, '..', '..'), env, execArgv: ['--import', 'tsx'] })
  t.teardown(() => victim.kill('SIGKILL'))
  const [port] = await once(victim, 'message', { signal: AbortSignal.timeout(30_000) }) as [number]
  const through = await startForwarder(t, port)
  const { page } = await openPage(t, through)
  const first = await page.evaluate(() => seen.client.connectionId)
  const publishing = (async () => {
    for (let n = 1; n <= 80; n++) {
      await publish(survivor, n, n)
      await sleep(10)
      if (n === 30) {
        through.to(survivor.port)
        victim.kill('SIGKILL')
      }
    }
  })()
  await publishing
  await gotAll(t, page, 80)
  t.not(await page.evaluate(() => seen.client.connectionId), first)
  t.match((await events(page, 'joined')).at(-1), { recovered: true })
})

t.test('a tab that slept: asks when it wakes, and gets what it missed', options, async (t) => {
  const [a, b] = await two(t)
  const through = await startForwarder(t, a.port)
  const { page, context } = await openPage(t, through)
  await publish(a, 1, 2)
  await until(async () => (await received(page)).length === 2)
  const cdp = await context.newCDPSession(page)
  await cdp.send('Page.setWebLifecycleState', { state: 'frozen' })
  await publish(a, 3, 20)
  through.to(b.port)
  through.cut()
  await publish(b, 21, 50)
  await sleep(500)
  await cdp.send('Page.setWebLifecycleState', { state: 'active' })
  await gotAll(t, page, 50)
  // and once more, while the connection is dead without a word
  await cdp.send('Page.setWebLifecycleState', { state: 'frozen' })
  through.silence(true)
  await publish(a, 51, 60)
  await sleep(200)
  await cdp.send('Page.setWebLifecycleState', { state: 'active' })
  await until(async () => await state(page) !== 'open')
  through.silence(false)
  await gotAll(t, page, 60)
})

t.test('a page that is loaded again goes on from where it was, as the same session', options, async (t) => {
  const [a, b] = await two(t)
  const through = await startForwarder(t, a.port)
  const { page } = await openPage(t, through)
  await publish(a, 1, 3)
  await until(async () => (await received(page)).length === 3)
  const session = await page.evaluate(() => seen.client.session)
  through.to(undefined)
  through.cut()
  await publish(b, 4, 6)
  await page.reload()
  through.to(b.port)
  await until(async () => (await received(page)).length === 3)
  t.strictSame(await received(page), [4, 5, 6])
  t.match(await events(page, 'joined'), [{ recovered: true }])
  t.equal(await page.evaluate(() => seen.client.session), session)
})

t.test('a tab that was duplicated is a session of its own, and leaves that of the first tab alone', options, async (t) => {
  const [a] = await two(t)
  const { page, context } = await openPage(t, await startForwarder(t, a.port))
  const sessionOf = async (page: Page): Promise<string | undefined> => {
    await page.waitForFunction(() => (globalThis as { seen?: Seen }).seen?.client.groups.includes('lobby'))
    return await page.evaluate(() => seen.client.session)
  }
  const session = await sessionOf(page)
  await page.reload()                                        // now the storage has the session
  t.equal(await sessionOf(page), session)
  const [copy] = await Promise.all([context.waitForEvent('page'), page.evaluate('void window.open(location.href)')])
  t.not(await sessionOf(copy), session)
  const people = async (): Promise<number> => (await a.app.registry.presence('lobby')).length
  t.equal(await people(), 2)
  const own = await sessionOf(copy)
  await copy.reload()
  t.equal(await sessionOf(copy), own, 'and keeps it')
  await copy.close()
  await until(async () => await people() === 1)
  t.strictSame([await state(page), await sessionOf(page)], ['open', session])
})

t.test('back and forward: the page misses nothing', options, async (t) => {
  const [a] = await two(t)
  const { page, origin } = await openPage(t, await startForwarder(t, a.port))
  await publish(a, 1, 3)
  await until(async () => (await received(page)).length === 3)
  await page.evaluate(() => { (globalThis as { marker?: boolean }).marker = true })
  await page.goto(`${origin}/other`)
  await publish(a, 4, 9)
  await page.goBack({ waitUntil: 'commit' }) // a page out of the cache does not load
  const kept = await page.evaluate(() => (globalThis as { marker?: boolean }).marker === true)
  t.comment(kept ? 'out of the back/forward cache' : 'loaded anew')
  await until(async () => (await received(page)).at(-1) === 9)
  t.strictSame(await received(page), kept ? numbers(9) : [4, 5, 6, 7, 8, 9])
})
