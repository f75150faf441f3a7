import t, { type Test } from 'tap'
import { existsSync } from 'node:fs'
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core'
import { buildApp } from '../../example-app/app.ts'
import { freePort } from '../helpers/ports.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { startBalancer } from './balancer.ts'
import { postJson, bearer, startInstances } from './instances.ts'
import { noNginx, startNginx } from './nginx.ts'
import { startServer, type ServerProcess } from './server-process.ts'

// The test runner sets CHROMIUM_BIN, to nothing when there is none.
const executablePath = process.env.CHROMIUM_BIN ??
  ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(file => existsSync(file)) ?? ''
const noBrowser = { skip: executablePath === '' && 'there is no Chromium (Debian: apt-get install chromium; elsewhere set CHROMIUM_BIN)' }
const args = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'
]

const wide = { viewport: { width: 1200, height: 800 } }
const narrow = { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true }

/** A window of its own; at the test's end nothing may have gone wrong in it, and nothing been asked of anybody else. */
async function open (t: Test, browser: Browser, url: string, options: BrowserContextOptions = wide): Promise<Page> {
  const context = await browser.newContext(options)
  const page = await context.newPage()
  page.setDefaultTimeout(60_000)
  const problems: string[] = []
  page.on('pageerror', error => problems.push(String(error)))
  page.on('console', message => { if (['error', 'warning'].includes(message.type())) problems.push(message.text()) })
  page.on('response', response => { if (response.status() >= 400) problems.push(`${response.status()} ${response.url()}`) })
  page.on('request', request => {
    if (!/^(data:|blob:)/.test(request.url()) && new URL(request.url()).origin !== new URL(url).origin) {
      problems.push(`asks ${request.url()}`)
    }
  })
  t.teardown(async () => {
    await context.close()
    const unexpected = problems.filter(problem => !expected.test(problem))
    if (unexpected.length > 0) throw new Error(unexpected.join('\n'))
  })
  await page.goto(url)
  return page
}
// What a browser itself says of a server that is away, which is what one of the tests is about.
const expected = /WebSocket connection to .* failed|ERR_CONNECTION_REFUSED|ERR_INTERNET_DISCONNECTED/

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

const connected = (page: Page): Promise<void> => page.getByRole('status').getByText('Connected').waitFor()
/** What was said, from top to bottom. */
const said = (page: Page): Promise<string[]> => page.locator('#log .said p').allTextContents()
const lines = (page: Page): Promise<string[]> => page.locator('#log > :not(.said)').allTextContents()
const here = (page: Page): Promise<string[]> => page.locator('#members .name').allInnerTexts()
const heard = (page: Page, text: string): Promise<void> => page.getByRole('log').getByText(text, { exact: true }).last().waitFor()
const hereIs = async (page: Page, count: number): Promise<void> => await page.locator('#count').getByText(
  String(count), { exact: true }
).waitFor()

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
    t.equal(await john.locator('#log .said.own[data-state=sent]').count(), 1)
    t.equal(await john.locator('.pending').count(), 0)
    t.equal(await john.getByRole('textbox', { name: 'Message' }).inputValue(), '')

    await postJson(`${one.url}/groups/lobby/messages`, { text: 'Lunch is ready' }, bearer('valid-token'))
    await Promise.all([john, jane].map(async page => await heard(page, 'Lunch is ready')))

    // A reload leads back into the room, as the same person, whom nobody missed; and what was said is there.
    await jane.reload()
    await connected(jane)
    t.equal(await jane.title(), '#lobby · Jane Roe')
    await heard(jane, 'Welcome Jane Roe to lobby!')
    t.strictSame(await lines(jane), ['Earlier in this room', 'Welcome Jane Roe to lobby!'])
    t.strictSame(await said(jane), ['Hello Jane', '<img src=x onerror=alert(1)> [John Doe]: not me', 'Lunch is ready'])
    t.equal(await jane.locator('#log time').count(), 0, 'nobody knows when that was')
    await say(jane, 'Still me')
    await heard(john, 'Still me')
    await hereIs(john, 2)
    await jane.getByRole('button', { name: 'Leave' }).click()
    await hereIs(john, 1)
    await heard(john, 'Jane Roe left the room')
    t.ok(await jane.getByRole('heading', { name: 'Join a room' }).isVisible())
    t.strictSame(
      await lines(john), ['Welcome John Doe to lobby!', 'Jane Roe joined the room', 'Jane Roe left the room'], 'each once'
    )
  })

  await t.test('a window that lost its connection comes back by itself, and misses nothing', async t => {
    const [one, two] = await startInstances(t, 'inst1', 'inst2')
    const page = await open(t, browser, `${one.url}/?room=lobby&user=john`)
    const jane = await open(t, browser, `${two.url}/?room=lobby&user=jane`)
    await hereIs(page, 2)
    await say(page, 'Here')
    await page.locator('[data-state=sent]').getByText('Here').waitFor()
    await two.app.registry.disconnect({ userId: 'john' }, { code: 1012 })
    await heard(page, 'Back. Nothing missed.')

    // The network goes, and the connection with it; the server notices.
    await page.context().setOffline(true)
    await two.app.registry.disconnect({ userId: 'john' }, { code: 1012 })
    await page.getByRole('status').getByText('Offline', { exact: true }).waitFor()
    await jane.locator('#members .away .name').getByText('John Doe').waitFor()
    for (const text of ['one', 'two', 'three']) await say(jane, text)
    await say(page, 'mine')
    t.ok(await page.locator('.pending[data-state=sending]').getByText('mine').isVisible(), 'it waits')
    await heard(jane, 'three')
    await page.context().setOffline(false)
    await heard(jane, 'mine')
    await page.locator('[data-state=sent]').getByText('mine').waitFor()
    t.strictSame(await said(page), ['Here', 'one', 'two', 'three', 'mine'])
    t.ok(await page.getByText('Back. 3 missed messages:').isVisible())
    t.equal(await page.locator('.pending').count(), 0)
    t.strictSame(await said(jane), ['Here', 'one', 'two', 'three', 'mine'])
    await until(async () => await jane.locator('#members .away').count() === 0)
    t.notOk((await lines(jane)).some(line => line.startsWith('John Doe ')), 'to others he never left')

    await one.app.close()
    await page.getByRole('status').getByText(/Reconnecting in \d+ s/).waitFor()
    await say(page, 'into the void')
    await page.getByRole('button', { name: 'Leave' }).click()
    t.ok(await page.getByRole('heading', { name: 'Join a room' }).isVisible())
  })

  await t.test('who closes one of two windows is still here', async t => {
    const [one, two] = await startInstances(t, 'inst1', 'inst2')
    const jane = await open(t, browser, `${one.url}/?room=lobby&user=jane`)
    const johns = await Promise.all([one, two].map(async ({ url }) => await open(t, browser, `${url}/?room=lobby&user=john`)))
    const where = async (): Promise<string> => await jane.locator('#members li', { hasText: 'John Doe' }).locator('.where').innerText()
    const away = jane.locator('#members .away .name')
    await until(async () => (await where()).endsWith(', 2 connections'))
    t.strictSame(await here(jane), ['Jane Roe you', 'John Doe'])

    await johns[1]?.close()
    await until(async () => two.app.registry.count() === 0)
    await say(jane, 'Still there?')
    await heard(johns[0] as Page, 'Still there?')
    // The others wait whether the window comes back, as after a reload.
    await until(async () => /^inst[12]$/.test(await where()), { timeoutMs: 30_000 })
    t.equal(await away.count(), 0)

    await johns[0]?.close()
    await away.getByText('John Doe').waitFor()
    await hereIs(jane, 1)
    await heard(jane, 'John Doe left the room')
    t.strictSame(await lines(jane), ['Welcome Jane Roe to lobby!', 'John Doe joined the room', 'John Doe left the room'])
  })

  await t.test('who was away for too long is told that messages are lost, and gets the rest', async t => {
    const [one] = await startInstances(t, 'inst1')
    const page = await open(t, browser, `${one.url}/?room=lobby&user=john`)
    await say(page, 'Here')
    await page.locator('[data-state=sent]').getByText('Here').waitFor()
    await page.context().setOffline(true)
    await one.app.registry.disconnect({ userId: 'john' }, { code: 1012 })
    await page.getByRole('status').getByText('Offline', { exact: true }).waitFor()
    // More bytes than a log keeps: the page does not show as many lines as messages would be needed.
    const filler = 'x'.repeat(20_000)
    const sent = Array.from({ length: 60 }, (_, at) => `${at + 1} ${filler}`)
    for (const text of sent) await one.app.registry.broadcastToGroup('lobby', `[Jane Roe]: ${text}`)
    await page.context().setOffline(false)
    await heard(page, sent.at(-1) ?? '')
    t.strictSame(
      await lines(page),
      ['Welcome John Doe to lobby!', 'Some messages are lost: there were more than the server keeps, or it was too long ago.']
    )
    const [first, ...rest] = await said(page)
    t.equal(first, 'Here')
    t.ok(rest.length > 40 && rest.length < sent.length, `${rest.length} of ${sent.length} were kept`)
    t.strictSame(rest, sent.slice(-rest.length))
    t.strictSame(await tooFaint(page), [], 'and sees it')
  })

  await t.test('without Redis a message is not sent, says so, and can be tried again', async t => {
    const redis = await startRedis(t)
    const app = buildApp({ instanceId: 'inst1', redis: redis.url, logLevel: 'silent' })
    t.teardown(async () => await app.close())
    const page = await open(t, browser, `${await app.listen({ port: 0, host: '127.0.0.1' })}/?room=lobby&user=john`)
    await say(page, 'first')
    await page.locator('[data-state=sent]').getByText('first').waitFor()
    await redis.kill()
    await until(() => app.registry.health().status === 'down')
    await say(page, 'second')
    await say(page, 'third')
    await until(async () => await page.locator('.pending[data-state=failed]').count() === 2)
    t.strictSame(await page.locator('.failure span').allTextContents(), Array(2).fill('Not sent: the server is cut off'))
    t.strictSame(await tooFaint(page), [])
    await page.getByRole('button', { name: 'Discard' }).last().click()

    await redis.restart()
    await until(() => app.registry.health().status === 'up', { timeoutMs: 60_000 })
    await page.getByRole('button', { name: 'Retry' }).click()
    await page.locator('[data-state=sent]').getByText('second').waitFor()
    t.strictSame(await said(page), ['first', 'second'])
    t.equal(await page.locator('.pending').count(), 0)
    await page.getByText('Some messages are lost: the server lost its record of this room').waitFor()
    t.equal(await page.locator('.gap').count(), 1)
  })

  const doors = {
    'a load balancer': { skip: false, open: startBalancer },
    nginx: { ...noNginx, open: startNginx }
  }
  for (const [name, { skip, open: openDoor }] of Object.entries(doors)) {
    await t.test(`an instance is killed: behind ${name} nothing is lost on the screen`, { skip }, async t => {
      const redis = await startRedis(t)
      const ports = [await freePort(), await freePort()] as const
      const servers = new Map<string, ServerProcess>()
      for (const [at, port] of ports.entries()) {
        servers.set(`inst${at + 1}`, startServer(t, { INSTANCE_ID: `inst${at + 1}`, PORT: String(port), REDIS_URL: redis.url }))
      }
      await Promise.all([...servers.values()].map(async server => await server.greeted()))

      const john = await open(t, browser, `${await openDoor(t, ports)}/?room=lobby&user=john`)
      await hereIs(john, 1)
      const [instance = ''] = await john.locator('#members .where').allInnerTexts()
      const other = instance === 'inst1' ? 'inst2' : 'inst1'
      const jane = await open(t, browser, `${servers.get(other)?.urls[0] ?? ''}/?room=lobby&user=jane`)
      await hereIs(jane, 2)

      const numbers = Array.from({ length: 60 }, (_, at) => String(at + 1))
      for (const number of numbers) {
        await say(jane, number)
        if (number === '20') servers.get(instance)?.kill('SIGKILL')
        if (number === '25') await say(john, 'from the other side')
      }
      await heard(john, '60')
      await heard(jane, 'from the other side')
      await Promise.all([john, jane].map(async page => await until(async () => await page.locator('.pending').count() === 0)))
      for (const page of [john, jane]) {
        const texts = await said(page)
        t.strictSame(texts.filter(text => text !== 'from the other side'), numbers, 'each once, in order')
        t.equal(texts.length, 61, 'also what was said meanwhile')
      }
      t.strictSame(await said(john), await said(jane), 'in one order for both')
      t.equal((await lines(john)).filter(line => line.startsWith('Back.')).length, 1)
      t.equal(await john.locator('.gap').count(), 0)
      t.notOk((await lines(jane)).some(line => line === 'John Doe left the room'), 'and John never left')
      await until(async () => (await jane.locator('#members .where').allInnerTexts()).join() === `${other},${other}`, {
        what: 'John to be seen where he is now'
      })
    })
  }

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
        await postJson(`${one.url}/groups/lobby/messages`, { text: 'yes?' }, bearer('jane-token'))
        await postJson(`${one.url}/groups/lobby/messages`, { text: 'Lunch is ready' }, bearer('jane-token'))
        await heard(page, 'Lunch is ready')
        await hereIs(page, 1)
        t.strictSame(await tooFaint(page), [], 'the room has contrast')

        t.ok(
          await page.evaluate('document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight'),
          'nothing sticks out'
        )
        const [header, side, log, composer] = await Promise.all(['header', 'aside', '#log', '#composer'].map(async part => {
          const box = await page.locator(part).filter({ visible: true }).boundingBox()
          if (box === null) throw new Error(`${part} is not to be seen`)
          return { ...box, right: box.x + box.width, bottom: box.y + box.height }
        }))
        if (header === undefined || side === undefined || log === undefined || composer === undefined) throw new Error('there are four')
        t.ok(header.bottom <= log.y && log.bottom <= composer.y && composer.bottom <= size.viewport.height)
        t.ok(
          width === 'wide' ? side.x >= log.right : side.y >= header.bottom && side.bottom <= log.y,
          'who is here: beside the messages, or above them'
        )
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
