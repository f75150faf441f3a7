import type { Test } from 'tap'
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core'
import { browserBinary } from '../../scripts/browser-binary.mjs'

const executablePath = browserBinary()
/** For tests that drive the page. */
export const inChromium = executablePath === undefined ? { skip: 'no Chromium on PATH and no CHROMIUM_BIN' } : {}

export async function startBrowser (t: Test): Promise<Browser> {
  const browser = await chromium.launch({ ...(executablePath === undefined ? {} : { executablePath }), args: ['--no-sandbox'] })
  t.teardown(async () => await browser.close())
  return browser
}

/** What a browser says of a server that is away for a moment, as in a deploy. */
const expected = /WebSocket connection to .* failed/

/** A window of somebody, in this room. At the test's end nothing may have gone wrong in it. */
export async function openPage (t: Test, context: BrowserContext, url: string, userId: string, room: string): Promise<Page> {
  const page = await context.newPage()
  page.setDefaultTimeout(10_000)
  const problems: string[] = []
  page.on('pageerror', error => problems.push(String(error)))
  page.on('console', message => { if (['error', 'warning'].includes(message.type())) problems.push(message.text()) })
  page.on('request', request => { if (new URL(request.url()).origin !== new URL(url).origin) problems.push(`asks ${request.url()}`) })
  t.teardown(() => {
    const unexpected = problems.filter(problem => !expected.test(problem))
    if (unexpected.length > 0) throw new Error(unexpected.join('\n'))
  })
  await page.goto(`${url}/?user=${userId}`)
  await page.getByRole('navigation', { name: 'Rooms' }).getByRole('button', { name: room }).click()
  await page.getByRole('status').getByText('Connected').waitFor()
  return page
}
