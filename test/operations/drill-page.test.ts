import t, { type Test } from 'tap'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { chromium, type Page } from 'playwright-core'
import { browserBinary } from '../../scripts/browser-binary.mjs'
import { forkProgram } from '../helpers/child.ts'
import { connect } from '../helpers/client.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'

// The drill of docs/operations.md as the page shows it. SCREENSHOTS names a folder that the screenshots go to.
noUnhandled(t)
const executablePath = browserBinary()

interface Operated { readonly process: ChildProcess, readonly url: string }

async function start (t: Test, label: string, redisUrl: string): Promise<Operated> {
  const child = forkProgram(fileURLToPath(new URL('./drill-program.ts', import.meta.url)), [label, redisUrl])
  t.teardown(() => child.kill('SIGKILL'))
  const [url] = await once(child, 'message') as [string]
  return { process: child, url }
}

/** Waits until the page says so, wherever. */
const says = async (page: Page, text: string | RegExp): Promise<void> => await page.getByText(text).first().waitFor()

async function shoot (t: Test, pages: Readonly<Record<string, Page>>, step: string): Promise<void> {
  const folder = process.env.SCREENSHOTS
  for (const [look, page] of Object.entries(pages)) {
    const path = folder === undefined ? {} : { path: `${folder}/drill-${step}-${look}.png` }
    const image = await page.screenshot({ fullPage: true, ...path })
    t.ok(image.length > 5_000, `${step}, ${look}`)
    const isTooWide = await page.evaluate('document.documentElement.scrollWidth > innerWidth')
    t.equal(isTooWide, false, 'nothing sticks out')
  }
}

t.test('what the page shows in each step of the drill', { skip: executablePath === undefined && 'there is no Chromium' }, async (t) => {
  const redis = await startRedis(t)
  const [one, two] = [await start(t, 'eu-1', redis.url), await start(t, 'eu-2', redis.url)]
  const browser = await chromium.launch({ executablePath: executablePath ?? '', args: ['--no-sandbox', '--disable-gpu'] })
  t.teardown(async () => await browser.close())
  const open = async (width: number, colorScheme: 'dark' | 'light'): Promise<Page> => {
    const page = await browser.newPage({ viewport: { width, height: 800 }, colorScheme })
    page.setDefaultTimeout(60_000)
    page.on('pageerror', error => t.fail(String(error)))
    await page.goto(`${one.url}/admin/`)
    return page
  }
  const pages = { '400-dark': await open(400, 'dark'), '1200-light': await open(1_200, 'light') }
  const page = pages['400-dark']
  const both = async (text: string | RegExp): Promise<void> => {
    await Promise.all(Object.values(pages).map(async one => await says(one, text)))
  }
  const member = (room: string, token?: string): ReturnType<typeof connect> =>
    connect(t, `${two.url.replace('http', 'ws')}/ws/${room}`, token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } })

  await both('All well: 2 instances are up')

  // A room is huge.
  const crowd = Array.from({ length: 80 }, () => member('huge'))
  await Promise.all(crowd.map(async ({ opened }) => await opened))
  await page.getByRole('row', { name: 'huge 80' }).waitFor()
  await shoot(t, pages, 'huge-room')

  // A client floods: one look at the user, and it is out.
  const flood = member('lobby', 'mallory')
  await flood.opened
  for (let i = 0; i < 500; i++) flood.send('x')
  await both(/a client is read more slowly.*\(pauses\) · user mallory/)
  await shoot(t, pages, 'flood')
  await page.getByRole('link', { name: 'mallory' }).click()
  await page.getByRole('button', { name: 'Block', exact: true }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Block' }).click()
  await says(page, 'Block done, connections: 1')
  await flood.closed
  await page.goBack()

  // Redis hangs. The page has its socket from an instance that stands alone now: it says so, and which others are silent.
  await page.goto(`${one.url}/admin/#group=huge`)
  await says(page, 'members in all instances: 80')
  redis.stop()
  // Who was there last is shown, although the log cannot be read.
  await page.getByText(/^cannot be shown: .*the Redis command link is down$/).waitFor()
  await says(page, 'Who is there')
  await says(page, /^members in all instances: 80 · as it was \d+ s ago$/)
  await page.goto(`${one.url}/admin/#groups=`)
  await page.getByRole('heading', { name: 'Groups', exact: true }).waitFor()
  await page.goto(`${one.url}/admin/#`)
  await both(/· on [12] of 2: eu-1/)
  await both('eu-2 is silent: hung, stopped, or cut off from Redis')
  await shoot(t, pages, 'redis-hangs')
  redis.cont()
  await both('All well: 2 instances are up')

  // An instance is stopped.
  two.process.kill('SIGSTOP')
  await both('eu-2 is silent: hung, stopped, or cut off from Redis')
  await both('1 of 2 instances need a look')
  await shoot(t, pages, 'instance-stopped')
  two.process.kill('SIGCONT')
  await both('All well: 2 instances are up')

  // A deploy: one is drained.
  two.process.send('drain')
  await both('eu-2 takes no new connections: drained, or closing')
  await shoot(t, pages, 'deploy')
  for (const { closed } of crowd) t.equal((await closed).code, 1012)
})
