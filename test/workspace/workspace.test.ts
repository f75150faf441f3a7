import t, { type Test } from 'tap'
import { isDeepStrictEqual } from 'node:util'
import { connect, type ContractIn, type MessageClient } from 'fastify-websocket-groups/client/messages'
import { streamsOf } from 'fastify-websocket-groups/client/streams'
import type { Locator, Page } from 'playwright-core'
import { WebSocket } from 'ws'
import type { Workspace } from '../../example-app/workspace/workspace.ts'
import { until } from '../helpers/until.ts'
import { inChromium, openPage, startBrowser } from './browser.ts'
import { startWorkspace, type Program } from './program.ts'

// The features of the workspace, started by its own command: with clients, and in the page.

type Client = MessageClient<ContractIn<Workspace>>

/** A client, and what it heard. */
interface Person { readonly client: Client, readonly heard: Array<readonly [string, unknown]> }

async function enter (t: Test, { host }: Program, name: string, room = 'general'): Promise<Person> {
  const client = connect<Workspace>(`ws://${host}/ws/${room}`, {
    token: `${name}-token`, WebSocket: WebSocket as never, backoff: { minMs: 50, maxMs: 500 }
  })
  t.teardown(() => client.close())
  const heard: Array<readonly [string, unknown]> = []
  for (const event of ['said', 'typing', 'read', 'whispered', 'notified'] as const) {
    client.on(event, (data, { position }) => heard.push([event, position === undefined ? data : { ...data, position }]))
  }
  client.connection.on('gap', gap => heard.push(['gap', gap]))
  client.connection.on('left', left => heard.push(['left', left]))
  await until(() => client.connection.groups.includes(room), { what: `${name} to be in ${room}` })
  return { client, heard }
}

/** The data of the events of this name, without their positions. */
function heardOf ({ heard }: Person, event: string): Array<Record<string, unknown>> {
  return heard.filter(([name]) => name === event).map(([, data]) => {
    const { position, ...rest } = data as Record<string, unknown>
    return rest
  })
}
async function hears (person: Person, event: string, data: object): Promise<void> {
  await until(() => heardOf(person, event).some(one => isDeepStrictEqual(one, data)), { what: `${event} ${JSON.stringify(data)}` })
}
/** Resolves when the room is closed to the person for good. */
async function isRefused (t: Test, { host }: Program, name: string, room: string): Promise<void> {
  const { connection } = connect(`ws://${host}/ws/${room}`, { token: `${name}-token`, WebSocket: WebSocket as never })
  t.teardown(() => connection.close())
  await until(() => connection.state === 'closed', { what: `${name} to be refused in ${room}` })
}
/** The instance that a person talks to, as others see it. */
const instanceOf = ({ client }: Person, userId: string): string =>
  client.connection.members('general').find(member => member.userId === userId)?.info?.instance ?? ''

const statusOf = async (page: Page): Promise<string | null> => await page.getByRole('status').textContent()

t.test('the workspace, on two instances', async t => {
  const workspace = await startWorkspace(t)
  const url = `http://${workspace.host}`
  const [ann, ben] = [await enter(t, workspace, 'ann'), await enter(t, workspace, 'ben')]

  await t.test('private rooms with roles', async t => {
    const rooms = async (name: string): Promise<unknown> => (
      await (await fetch(`${url}/rooms`, { headers: { authorization: `Bearer ${name}-token` } })).json()
    )
    t.strictSame(await rooms('cleo'), [
      { room: 'general', role: 'member' }, { room: 'design', role: 'guest' }, { room: 'board', role: 'member' }
    ])
    await isRefused(t, workspace, 'dan', 'board')
    const guest = await enter(t, workspace, 'cleo', 'design')
    await t.rejects(guest.client.request('say', { text: 'may I?' }), { code: 'WSG_FORBIDDEN' })
    // The prompt would be shown to all.
    await t.rejects(guest.client.request('ask', { prompt: 'may I?' }), { code: 'WSG_FORBIDDEN' })
  })

  await t.test('who is online, in the room and in the workspace', async t => {
    await until(() => ann.client.connection.members('everyone').length === 2)
    t.strictSame(ann.client.connection.members('general').map(({ userId, info }) => [userId, info?.name]), [
      ['ann', 'Ann Arbor'], ['ben', 'Ben Nevis']
    ])
    t.not(instanceOf(ann, 'ann'), instanceOf(ann, 'ben'), 'they are on different instances')
  })

  await t.test('messages are validated, read, and found again', async t => {
    await ann.client.request('say', { text: 'Lunch at noon' })
    await hears(ben, 'said', { from: 'ann', text: 'Lunch at noon' })
    await t.rejects(ann.client.request('say', { text: '' }), { code: 'WSG_MESSAGE_INVALID' })

    ben.client.emit('typing')
    await hears(ann, 'typing', { from: 'ben' })
    t.strictSame(heardOf(ben, 'typing'), [], 'not to who types')

    const { position } = ben.heard.find(([name]) => name === 'said')?.[1] as { position: string }
    await ben.client.request('read', { upTo: position })
    await hears(ann, 'read', { by: 'ben', upTo: position })

    t.strictSame(await ben.client.request('search', { text: 'noon' }), [{ from: 'ann', text: 'Lunch at noon', position }])
    t.strictSame(await ben.client.request('search', { text: 'dinner' }), [])
  })

  await t.test('direct messages reach all devices of both', async t => {
    const second = await enter(t, workspace, 'ann', 'board')
    await ben.client.request('whisper', { to: 'ann', text: 'psst' })
    for (const person of [ann, second, ben]) await hears(person, 'whispered', { from: 'ben', to: 'ann', text: 'psst' })
    second.client.close()
  })

  await t.test('a worker tells when a report is ready', async () => {
    await ann.client.request('report')
    await until(() => heardOf(ann, 'notified').length === 1, { what: 'the notification' })
  })

  await t.test('history comes page by page', async t => {
    const { messages, more } = await ben.client.connection.history('general', { limit: 1, reverse: true })
    t.equal(messages.length, 1)
    t.equal(more, true)
    const earlier = await ben.client.connection.history('general', { limit: 10, reverse: true, before: messages[0]?.position })
    t.equal(earlier.more, false)
    t.match(earlier.messages.at(-1)?.data, { type: 'said', data: { text: 'Lunch at noon' } })
  })

  await t.test('an answer grows, is whole for who comes later, and is stopped from another tab', async t => {
    await ann.client.request('ask', { prompt: 'Why?' })
    const tab = await enter(t, workspace, 'ann')
    const streams = streamsOf(tab.client.connection)
    await until(() => (streams.list('general')[0]?.text.length ?? 0) > 40, { what: 'the answer to grow in the second tab' })
    const [answer] = streams.list('general')
    t.match(answer, { state: 'open', text: /^You asked: “Why\?” / })
    t.equal(await streams.stop('general', answer?.id ?? ''), true)
    await until(() => streams.list('general')[0]?.state === 'stopped')
    tab.client.close()
  })

  await t.test('the page', inChromium, async t => {
    const browser = await startBrowser(t)
    const bens = await browser.newContext()
    const anns = await browser.newContext({ colorScheme: 'dark', viewport: { width: 400, height: 760 } })
    const page = await openPage(t, bens, url, 'ben', 'design')
    const other = await openPage(t, anns, url, 'ann', 'design')
    const input = (page: Page): Locator => page.getByRole('textbox', { name: 'Message' })
    const shows = async (page: Page, text: string | RegExp): Promise<void> => await page.locator('main').getByText(text).last().waitFor()
    const say = async (page: Page, text: string): Promise<void> => {
      await input(page).fill(text)
      await input(page).press('Enter')
    }

    await t.test('says who is here, who writes, and who has read what', async t => {
      await page.getByRole('list', { name: 'In this room' }).getByText('Ann Arbor').waitFor({ state: 'attached' })
      await page.getByText('2 online').waitFor()
      await input(other).pressSequentially('He')
      await shows(page, 'Ann Arbor is writing')
      await input(other).fill('')
      await say(page, '<b>Hello</b>')
      await shows(other, '<b>Hello</b>')
      await shows(page, 'Read by Ann Arbor')
      await say(page, 'x'.repeat(2_001))
      await page.getByRole('alert').getByText('A message has 1 to 2,000 characters.').waitFor()
      t.equal((await input(page).inputValue()).length, 2_001, 'it is not lost')
    })

    await t.test('finds what was said, and notifies', async () => {
      await page.getByRole('searchbox').fill('Hello')
      await page.getByRole('list', { name: 'Found' }).getByText('<b>Hello</b>').waitFor()
      await page.getByRole('searchbox').fill('')
      await page.getByRole('button', { name: 'Report' }).click()
      await page.getByRole('log', { name: 'Notifications' }).getByText('The report on #design is ready').waitFor()
    })

    await t.test('has direct messages', async () => {
      await other.getByRole('button', { name: 'Ben Nevis' }).click()
      await say(other, 'Lunch?')
      await shows(other, 'Lunch?')
      await page.getByTitle('New messages').waitFor()
      await page.getByRole('button', { name: /^Ann Arbor/ }).click()
      await shows(page, 'Lunch?')
      for (const one of [page, other]) await one.getByRole('navigation', { name: 'Rooms' }).getByRole('button', { name: 'design' }).click()
    })

    await t.test('shows earlier messages page by page', async t => {
      // More than a page, by connections that may say ten at once.
      for (let at = 0; at < 6; at++) {
        const { client } = await enter(t, workspace, 'ben', 'design')
        for (let n = 0; n < 10; n++) await client.request('say', { text: `line ${at * 10 + n}` })
        client.close()
      }
      await page.reload()
      await page.getByRole('navigation', { name: 'Rooms' }).getByRole('button', { name: 'design' }).click()
      await shows(page, 'line 59')
      t.equal(await page.getByText('<b>Hello</b>').count(), 0)
      await until(async () => {
        if (await page.getByText('<b>Hello</b>').count() > 0) return true
        await page.getByRole('button', { name: 'Earlier messages' }).click()
        return false
      }, { everyMs: 50, what: 'the first message' })
      const lines = await page.locator('.said p').getByText(/^line/).allInnerTexts()
      t.strictSame(lines, Array.from({ length: 60 }, (_, at) => `line ${at}`))
    })

    await t.test('shows the rest of an answer after a reload, and a second tab stops it', async t => {
      await input(page).fill('Why?')
      await page.getByRole('button', { name: 'Ask the assistant' }).click()
      await shows(page, /You asked: “Why\?” {2}Groups/)
      await page.reload()
      await page.getByRole('navigation', { name: 'Rooms' }).getByRole('button', { name: 'design' }).click()
      await shows(page, /You asked: “Why\?” {2}Groups/)
      const tab = await openPage(t, bens, url, 'ben', 'design')
      await tab.getByRole('button', { name: 'Stop' }).click()
      for (const one of [page, other, tab]) await one.locator('.answer[data-state=stopped]').waitFor()
      const answers = await Promise.all([page, other, tab].map(async one => await one.locator('.answer > p:last-child').innerText()))
      t.equal(new Set(answers).size, 1, 'all have the same text')
      await tab.close()
    })

    await t.test('has one beside it that shows the messages of the service', async t => {
      const messages = await bens.newPage()
      t.teardown(async () => { await messages.close() })
      await messages.goto(`${url}/messages`)
      await messages.getByText('ws_room.receive.say', { exact: true }).waitFor()
    })

    await t.test('goes on while both instances are replaced, as clients do', async t => {
      const statuses = async (): Promise<Array<string | null>> => [await statusOf(page), await statusOf(other)]
      const before = await statuses()
      const heardBefore = heardOf(ann, 'said').length
      workspace.process.kill('SIGHUP')
      const sent: string[] = []
      await until(async () => {
        const text = `during ${sent.length}`
        sent.push(text)
        await Promise.all([say(page, text), ben.client.request('say', { text }, { idempotent: true })])
        return (await statuses()).every((status, at) => status !== before[at] && status?.startsWith('Connected'))
      }, { timeoutMs: 60_000, everyMs: 550, what: 'both windows to be on new instances' })
      for (const one of [page, other]) {
        await shows(one, sent.at(-1) ?? '')
        t.strictSame(await one.locator('.said p').getByText(/^during/).allInnerTexts(), sent)
      }
      await hears(ann, 'said', { from: 'ben', text: sent.at(-1) })
      t.strictSame(heardOf(ann, 'said').slice(heardBefore).map(({ text }) => text), sent)
      t.strictSame([ann, ben].flatMap(person => heardOf(person, 'gap')), [])
    })

    await t.test('tells who was taken out', async t => {
      await page.getByRole('button', { name: 'Take Ann Arbor out' }).click()
      await other.getByRole('log', { name: 'Notifications' }).getByText('You are out of #design: Ben Nevis took you out').waitFor()
      await other.getByRole('heading', { name: 'general' }).waitFor()
      t.equal(await other.getByRole('navigation', { name: 'Rooms' }).getByRole('button', { name: 'design' }).count(), 0)
    })
  })

  await t.test('an owner takes somebody out, who hears no more and does not come back', async t => {
    await t.rejects(ben.client.request('kick', { userId: 'ann' }), { code: 'WSG_FORBIDDEN' })
    await ann.client.request('kick', { userId: 'ben' })
    await until(() => heardOf(ben, 'left').length > 0)
    t.match(heardOf(ben, 'left'), [{ group: 'general', reason: 'Ann Arbor took you out' }])
    await t.rejects(ben.client.request('say', { text: 'still here?' }), { code: 'WSG_FORBIDDEN' })
    await isRefused(t, workspace, 'ben', 'general')
  })

  await t.test('who says too much is refused for a while', async t => {
    const texts = Array.from({ length: 15 }, (_, at) => `message ${at}`)
    const answers = await Promise.allSettled(texts.map(async text => await ann.client.request('say', { text })))
    const refusals = answers.filter(({ status }) => status === 'rejected')
    t.ok(refusals.length > 0 && refusals.length < 10, `${refusals.length}`)
    for (const refusal of refusals) t.match(refusal, { reason: { code: 'WSG_RATE_LIMITED' } })
  })

  await t.test('metrics and health', async t => {
    t.match(await (await fetch(`${url}/metrics`)).text(), /^websocket_groups_connections \d/m)
    t.equal((await fetch(`${url}/readyz`)).status, 200)
  })

  t.equal(await workspace.close(), 0)
})
