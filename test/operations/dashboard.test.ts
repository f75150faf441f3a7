import t, { type Test } from 'tap'
import { chromium, type Browser } from 'playwright-core'
import groupsDashboard from '../../lib/operations/dashboard.ts'
import { memoryCluster } from '../../plugin.ts'
import { browserBinary } from '../../scripts/browser-binary.mjs'
import { connect, upgradeStatus } from '../helpers/client.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { serve, service, type Served } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const key = 'a key of the whole cluster'
const login = 'Basic YWRtaW46c2VjcmV0'

async function start (t: Test, cluster: ReturnType<typeof memoryCluster>, instanceLabel: string, withKey = true): Promise<Served> {
  return await serve(t, { backplane: cluster.backplane(), instanceLabel }, app => {
    app.wsRoom('/ws/:room', { auth: false })
    void app.register(groupsDashboard, {
      prefix: '/admin/realtime',
      everyMs: 100,
      ...(withKey ? { key } : {}),
      auth: async (request, reply) => {
        if (request.headers.authorization !== login) return await reply.code(401).header('www-authenticate', 'Basic').send()
      }
    })
  })
}

interface Report { readonly id: string, readonly label: string, readonly connections: number, readonly busiest: Array<[string, number]> }

t.test('without auth an application does not start, nor with wrong options', async (t) => {
  for (const options of [{}, { auth: true }, { auth: async () => {}, key: 'short' }, { auth: async () => {}, everyMs: 1 }]) {
    const { app } = await service(t)
    await t.rejects(async () => await app.register(groupsDashboard, options as never), { code: 'WSG_OPTION_INVALID' })
  }
})

t.test('the page, its files and its socket are for those whom auth lets in, and for its own origin', async (t) => {
  const { app, url } = await start(t, memoryCluster(), 'a')
  for (const file of ['', '/', '/dashboard.js', '/dashboard.css']) {
    t.equal((await app.inject(`/admin/realtime${file}`)).statusCode, 401, file)
  }
  t.equal((await upgradeStatus(`${url}/admin/realtime/live`)).statusCode, 401)
  const foreign = { authorization: login, origin: 'https://evil.example' }
  t.equal((await upgradeStatus(`${url}/admin/realtime/live`, { headers: foreign })).statusCode, 403)
  const page = await app.inject({ url: '/admin/realtime/', headers: { authorization: login } })
  t.equal(page.statusCode, 200)
  t.match(page.headers['content-security-policy'], /^default-src 'none'; script-src 'self'; style-src 'self';/)
  t.notMatch(page.body, /https?:|<script>|style=| on\w+=/, 'nothing that the policy forbids')
  const redirect = await app.inject({ url: '/admin/realtime', headers: { authorization: login } })
  t.equal(redirect.headers.location, 'realtime/')
})

t.test('whoever looks is told of all instances, and without a key of one', async (t) => {
  const cluster = memoryCluster()
  const [a, b, alone] = [await start(t, cluster, 'a'), await start(t, cluster, 'b'), await start(t, cluster, 'alone', false)]
  const member = connect(t, `${b.url}/ws/lobby`)
  await member.opened
  const reportsOf = ({ url }: Served): (() => Report[]) => {
    const { messages } = connect(t, `${url}/admin/realtime/live`, { headers: { authorization: login } })
    return () => messages.map(message => JSON.parse(String(message)) as Report)
  }
  const [seen, seenAlone] = [reportsOf(a), reportsOf(alone)]
  await until(() => seen().some(({ label, busiest }) => label === 'b' && busiest.some(([name, members]) => name === 'lobby' && members === 1)))
  await until(() => seenAlone().length > 3)
  t.strictSame([...new Set(seen().map(({ label }) => label))].sort(), ['a', 'b'])
  t.strictSame([...new Set(seenAlone().map(({ label }) => label))], ['alone'])
  t.notOk(JSON.stringify(seen()).includes('dashboard-'), 'the group of the reports is in none of them')
})

const executablePath = browserBinary()
t.test('in Chromium it shows the cluster, narrow and wide, light and dark', {
  skip: executablePath === undefined && 'there is no Chromium'
}, async (t) => {
  const cluster = memoryCluster()
  const [a, b] = [await start(t, cluster, 'eu-1'), await start(t, cluster, 'eu-2')]
  const member = connect(t, `${b.url}/ws/<b>lobby`.replace('<b>', '%3Cb%3E'))
  await member.opened
  const browser: Browser = await chromium.launch({ executablePath: executablePath ?? '', args: ['--no-sandbox', '--disable-gpu'] })
  t.teardown(async () => await browser.close())
  for (const [width, colorScheme] of [[400, 'dark'], [1_200, 'light']] as const) {
    const context = await browser.newContext({
      viewport: { width, height: 800 }, colorScheme, httpCredentials: { username: 'admin', password: 'secret' }
    })
    const page = await context.newPage()
    page.setDefaultTimeout(60_000)
    const problems: string[] = []
    page.on('pageerror', error => problems.push(String(error)))
    page.on('console', message => {
      if (['error', 'warning'].includes(message.type()) && !message.text().includes('401')) problems.push(message.text())
    })
    page.on('request', request => { if (!request.url().startsWith(a.url.replace('ws:', 'http:'))) problems.push(request.url()) })
    await page.goto(`${a.url.replace('ws:', 'http:')}/admin/realtime`)
    await page.getByRole('heading', { name: /^eu-1 · / }).waitFor()
    await page.getByRole('heading', { name: /^eu-2 · / }).waitFor()
    await page.getByRole('cell', { name: '<b>lobby' }).waitFor()
    t.equal(await page.getByRole('status').textContent(), 'Live')
    const layout = await page.evaluate('({ over: document.documentElement.scrollWidth - innerWidth, ' +
      'background: getComputedStyle(document.body).backgroundColor })') as { over: number, background: string }
    t.ok(layout.over <= 0, `nothing sticks out at ${width} px`)
    t.equal(layout.background === 'rgb(255, 255, 255)', colorScheme === 'light', layout.background)
    t.ok((await page.screenshot({ fullPage: true, ...screenshot(`dashboard-${width}-${colorScheme}`) })).length > 5_000)
    t.strictSame(problems, [])
    await context.close()
  }
})

/** Keeps the screenshots where SCREENSHOTS says. */
function screenshot (name: string): { path?: string } {
  const folder = process.env.SCREENSHOTS
  return folder === undefined ? {} : { path: `${folder}/${name}.png` }
}
