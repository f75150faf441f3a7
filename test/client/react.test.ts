import t, { type Test } from 'tap'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { build } from 'esbuild'
import { chromium, type Page } from 'playwright-core'
import type { AnyMessages } from '../../plugin.ts'
import { browserBinary } from '../../scripts/browser-binary.mjs'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { serve } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

// The hooks in a real Chromium, in StrictMode, against the real plugin.

noUnhandled(t)
const executablePath = browserBinary()
const options = executablePath === undefined ? { skip: 'no Chromium on PATH and no CHROMIUM_BIN' } : {}

/** Where React is: the hooks are for two releases, see .ci/run. */
const reactModules = process.env.REACT_MODULES ?? join(import.meta.dirname, '../../node_modules')

const html = '<!doctype html><link rel="icon" href="data:,"><div id="root"></div><script type="module" src="/page.js"></script>'

async function openPage (t: Test, url: string): Promise<Page> {
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, 'react-page.ts')],
    bundle: true,
    write: false,
    format: 'esm',
    alias: Object.fromEntries(['react', 'react-dom'].map(name => [name, join(reactModules, name)])),
    define: { 'process.env.NODE_ENV': '"development"' }
  })
  const server = createServer((request, response) => {
    const script = request.url === '/page.js'
    response.setHeader('content-type', script ? 'text/javascript' : 'text/html')
    response.end(script ? outputFiles[0]?.text : html)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const browser = await chromium.launch({ ...(executablePath === undefined ? {} : { executablePath }), args: ['--no-sandbox'] })
  const page = await browser.newPage()
  const problems: string[] = []
  page.on('pageerror', error => problems.push(String(error)))
  page.on('console', message => { if (['error', 'warning'].includes(message.type())) problems.push(message.text()) })
  t.teardown(async () => {
    await browser.close()
    server.closeAllConnections()
    server.close()
    if (problems.length > 0) throw new Error(problems.join('\n'))
  })
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/?url=${encodeURIComponent(url)}#first`)
  return page
}

t.test('hooks show a connection, groups, replies and streams, through StrictMode, reloads of code and breaks', options, async t => {
  const { registry, url } = await serve(t, {}, app => {
    const messages = app.wsMessages({
      messages: {
        say: {
          reply: { type: 'object', properties: { length: { type: 'integer' } } },
          handler ({ data }) {
            const { text } = data as { text: string }
            if (text === 'bad') throw Object.assign(new Error('no such word'), { statusCode: 422, code: 'BAD_WORD' })
            return { length: text.length }
          }
        }
      }
    }) as AnyMessages
    app.wsRoom('/:room', { presence: true, mayJoin: (_connection, group) => group !== 'secret', messages })
  })
  const page = await openPage(t, `${url}/lobby`)
  const shown = async (id: string): Promise<unknown> => JSON.parse(await page.locator(`#${id}`).textContent() || 'null') as unknown
  const shows = async (id: string, value: unknown): Promise<void> => {
    await until(async () => JSON.stringify(await shown(id)) === JSON.stringify(value), { what: `${id} to be ${JSON.stringify(value)}` })
  }
  const { version } = createRequire(import.meta.url)(join(reactModules, 'react', 'package.json')) as { version: string }
  t.equal(await shown('react'), version)
  await shows('state', 'open')
  await shows('joined', true)
  await shows('members', ['ann'])
  await shows('forbidden', 'WSG_FORBIDDEN')
  t.equal(await shown('error'), null)
  t.equal(registry.stats().connectionsOpened, 1, 'StrictMode mounts twice, and connects once')

  await registry.broadcastToGroup('den', 'one')
  await shows('heard', ['one'])
  for (const text of ['two', 'three']) await registry.broadcastJson('den', { type: 'said', data: { text } })
  await shows('said', ['den: two', 'den: three'])
  await page.locator('#say').click()
  await shows('request', { pending: false, reply: { length: 5 } })
  await page.locator('#fail').click()
  await shows('request', { pending: false, error: 'BAD_WORD' })

  const stream = registry.stream('den', 'r1', { flushMs: 10 })
  stream.append('Hello')
  await shows('stream', { text: 'Hello', state: 'open' })
  for (const { id } of registry.all()) registry.get(id)?.terminate()
  stream.append(', world')
  await stream.done()
  await shows('stream', { text: 'Hello, world', state: 'done' })
  await shows('streams', 1)
  await shows('joined', true)

  const opened = Number(registry.stats().connectionsOpened)
  await page.evaluate(() => (globalThis as unknown as { render (name: string): void }).render('second'))
  await shows('name', 'second')
  await shows('joined', true)
  await shows('stream', { text: 'Hello, world', state: 'done' })
  await sleep(700)
  t.equal(registry.stats().connectionsOpened, opened, 'a component that is replaced goes on with the connection')
  await page.evaluate(() => (globalThis as unknown as { unmount (): void }).unmount())
  await until(() => registry.count() === 0)
})
