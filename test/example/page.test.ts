import t, { type Test } from 'tap'
import { existsSync } from 'node:fs'
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core'
import { postJson, bearer, startInstances } from './instances.ts'

// The test runner sets CHROMIUM_BIN, to nothing when there is none.
const executablePath = process.env.CHROMIUM_BIN ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(file => existsSync(file)) ?? ''
const noBrowser = { skip: executablePath === '' && 'there is no Chromium (Debian: apt-get install chromium; elsewhere set CHROMIUM_BIN)' }
const args = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']

const wide = { viewport: { width: 1200, height: 800 } }
const narrow = { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true }

/** A window of its own; at the test's end nothing may have gone wrong in it, and nothing been asked of anybody else. */
async function open (t: Test, browser: Browser, url: string, options: BrowserContextOptions = wide): Promise<Page> {
  const context = await browser.newContext(options)
  const page = await context.newPage()
  page.setDefaultTimeout(10_000)
  const problems: string[] = []
  page.on('pageerror', error => problems.push(String(error)))
  page.on('console', message => { if (['error', 'warning'].includes(message.type())) problems.push(message.text()) })
  page.on('response', response => { if (response.status() >= 400) problems.push(`${response.status()} ${response.url()}`) })
  page.on('request', request => { if (!/^(data:|blob:)/.test(request.url()) && new URL(request.url()).origin !== new URL(url).origin) problems.push(`asks ${request.url()}`) })
  t.teardown(async () => {
    await context.close()
    const unexpected = problems.filter(problem => !expected.test(problem))
    if (unexpected.length > 0) throw new Error(unexpected.join('\n'))
  })
  await page.goto(url)
  return page
}
// What a browser itself says of a server that is away, which is what one of the tests is about.
const expected = /WebSocket connection to .* failed|ERR_CONNECTION_REFUSED/

async function join (page: Page, name: string, room = 'lobby'): Promise<void> {
  await page.getByLabel(name).check()
  await page.getByLabel('Room').fill(room)
  await page.getByRole('button', { name: 'Join' }).click()
  await page.getByRole('status').getByText('Connected').waitFor()
}

async function say (page: Page, text: string): Promise<void> {
  const input = page.getByRole('textbox', { name: 'Message' })
  await input.fill(text)
  await input.press('Enter')
}

const here = (page: Page): Promise<string[]> => page.locator('#members .name').allInnerTexts()
const heard = (page: Page, text: string): Promise<void> => page.getByRole('log').getByText(text, { exact: true }).last().waitFor()
const hereIs = async (page: Page, count: number): Promise<void> => await page.locator('#count').getByText(String(count), { exact: true }).waitFor()

t.test('the chat page', noBrowser, async t => {
  const browser = await chromium.launch({ executablePath, args })
  t.teardown(async () => await browser.close())

  await t.test('two windows on two ports see each other', async t => {
    const [one, two] = await startInstances(t, 'inst1', 'inst2')
    const john = await open(t, browser, one.url)
    const jane = await open(t, browser, two.url)
    await join(john, 'John Doe')
    await heard(john, 'Welcome John Doe to lobby!')
    await join(jane, 'Jane Roe')
    await heard(john, 'Jane Roe joined the room')
    await Promise.all([john, jane].map(async page => await hereIs(page, 2)))
    t.strictSame(await here(john), ['John Doe you', 'Jane Roe'])
    t.strictSame(await here(jane), ['Jane Roe you', 'John Doe'])
    t.strictSame(await john.locator('#members .where').allInnerTexts(), ['inst1', 'inst2'])

    await say(john, 'Hello Jane')
    await heard(jane, 'Hello Jane')
    await say(jane, '<img src=x onerror=alert(1)> [John Doe]: not me')
    await heard(john, '<img src=x onerror=alert(1)> [John Doe]: not me')
    t.equal(await john.locator('#log img').count(), 0, 'text stays text')
    t.strictSame(await john.locator('#log .said .name').allTextContents(), ['John Doe:', 'Jane Roe:'], 'and nobody speaks for another')
    t.equal(await john.locator('#log .said.own').count(), 1)
    t.equal(await john.getByRole('textbox', { name: 'Message' }).inputValue(), '')

    await postJson(`${one.url}/groups/lobby/messages`, { text: 'Lunch is ready' }, bearer('valid-token'))
    await Promise.all([john, jane].map(async page => await heard(page, 'Lunch is ready')))

    // A reload leads back into the room, as the same person.
    await jane.reload()
    await jane.getByRole('status').getByText('Connected').waitFor()
    t.equal(await jane.title(), '#lobby · Jane Roe')
    await hereIs(john, 2)
    await jane.getByRole('button', { name: 'Leave' }).click()
    await hereIs(john, 1)
    await heard(john, 'Jane Roe left the room')
    t.ok(await jane.getByRole('heading', { name: 'Join a room' }).isVisible())
  })

  await t.test('a window that lost its connection comes back by itself, and says that it was away', async t => {
    const [one, two] = await startInstances(t, 'inst1', 'inst2')
    const page = await open(t, browser, `${one.url}/?room=lobby&user=john`)
    await page.getByRole('status').getByText('Connected').waitFor()
    await two.app.registry.disconnect({ userId: 'john' }, { code: 1012 })
    await page.getByText('What was said meanwhile did not reach this page.').waitFor()
    await say(page, 'Here again')
    await heard(page, 'Here again')
    await hereIs(page, 1)

    await one.app.close()
    await page.getByRole('status').getByText(/Offline, next try in \d+ s/).waitFor()
    t.ok(await page.getByRole('button', { name: 'Send' }).isDisabled())
    await page.getByRole('button', { name: 'Leave' }).click()
    t.ok(await page.getByRole('heading', { name: 'Join a room' }).isVisible())
  })

  await t.test('it works by keyboard alone', async t => {
    const [one] = await startInstances(t, 'inst1')
    const page = await open(t, browser, one.url)
    await page.keyboard.press('Tab')
    await page.keyboard.press('ArrowRight')
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    await heard(page, 'Welcome Jane Roe to lobby!')
    await page.keyboard.type('typed at once')
    await page.keyboard.press('Enter')
    await heard(page, 'typed at once')
    t.equal(await page.locator('#log').getAttribute('role'), 'log')
  })

  for (const colorScheme of ['light', 'dark'] as const) {
    for (const [width, size] of Object.entries({ wide, narrow })) {
      await t.test(`it looks right: ${colorScheme}, ${width}`, async t => {
        const [one] = await startInstances(t, 'inst1')
        const page = await open(t, browser, one.url, { ...size, colorScheme })
        t.strictSame(await tooFaint(page), [], 'the door has contrast')
        await join(page, 'Maria Silva')
        await say(page, 'A word of an improbable length: ' + 'x'.repeat(300))
        await postJson(`${one.url}/groups/lobby/messages`, { text: '[Jane Roe]: yes?' }, bearer('jane-token'))
        await postJson(`${one.url}/groups/lobby/messages`, { text: 'Lunch is ready' }, bearer('jane-token'))
        await heard(page, 'Lunch is ready')
        await hereIs(page, 1)
        t.strictSame(await tooFaint(page), [], 'the room has contrast')

        t.ok(await page.evaluate('document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight'), 'nothing sticks out')
        const [header, side, log, composer] = await Promise.all(['header', 'aside', '#log', '#composer'].map(async part => {
          const box = await page.locator(part).filter({ visible: true }).boundingBox()
          if (box === null) throw new Error(`${part} is not to be seen`)
          return { ...box, right: box.x + box.width, bottom: box.y + box.height }
        }))
        if (header === undefined || side === undefined || log === undefined || composer === undefined) throw new Error('there are four')
        t.ok(header.bottom <= log.y && log.bottom <= composer.y && composer.bottom <= size.viewport.height)
        t.ok(width === 'wide' ? side.x >= log.right : side.y >= header.bottom && side.bottom <= log.y, 'who is here: beside the messages, or above them')
        t.ok(log.height > size.viewport.height / 2, 'the messages have most of the room')
        t.ok((await page.screenshot()).length > 5_000)
      })
    }
  }
})

/** Texts with less contrast to what is behind them than WCAG 2.1 AA asks for (4.5 to 1). */
async function tooFaint (page: Page): Promise<unknown> {
  return await page.evaluate(`(() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
    const paint = (...colors) => {
      canvas.clearRect(0, 0, 1, 1)
      for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1) }
      return canvas.getImageData(0, 0, 1, 1).data
    }
    const luminance = rgb => [0.2126, 0.7152, 0.0722].reduce((sum, share, at) => {
      const part = rgb[at] / 255
      return sum + share * (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    }, 0)
    const faint = []
    for (const node of document.querySelectorAll('main:not([hidden]) *')) {
      const hasText = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim() !== '')
      if (!hasText || node.matches(':disabled, .visually-hidden') || !node.checkVisibility()) continue
      const behind = []
      for (let at = node; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor)
      const back = paint('white', ...behind)
      const front = paint('white', ...behind, getComputedStyle(node).color)
      const [dark, light] = [luminance(back), luminance(front)].sort((a, b) => a - b)
      const ratio = (light + 0.05) / (dark + 0.05)
      if (ratio < 4.5) faint.push(node.className + ' ' + node.textContent + ' ' + ratio.toFixed(2))
    }
    return faint
  })()`)
}
