import t from 'tap'
import type { AddressInfo } from 'node:net'
import { buildWorkspace } from '../../example-app/workspace/workspace.ts'
import { Roles } from '../../example-app/workspace/people.ts'
import { startRedis } from '../helpers/redis.ts'
import { inChromium, openPage, startBrowser } from './browser.ts'

// What the page of the workspace shows while its Redis does not answer.

t.test('a page of messages that cannot be loaded is said, and loaded later', inChromium, async t => {
  const redis = await startRedis(t)
  const roles = new Roles(redis.url)
  await roles.begin()
  roles.close()
  const { app, workspace } = await buildWorkspace({ redis: redis.url, instance: 'inst1', logLevel: 'silent' })
  t.teardown(async () => { await app.close() })
  await app.listen({ host: '127.0.0.1', port: 0 })
  for (let n = 0; n < 60; n++) await workspace.emit('design', 'said', { from: 'ann', text: `line ${n}` })

  const context = await (await startBrowser(t)).newContext()
  const page = await openPage(t, context, `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`, 'ben', 'design')
  await page.locator('main').getByText('line 59').waitFor()
  redis.stop()
  t.teardown(() => redis.cont())
  await page.getByRole('button', { name: 'Earlier messages' }).click()
  await page.getByRole('alert').getByText('Messages could not be loaded.').waitFor()
  t.equal(await page.getByText('line 0', { exact: true }).count(), 0)
  redis.cont()
  await page.getByRole('button', { name: 'Try again' }).click()
  await page.getByText('line 0', { exact: true }).waitFor()
  t.equal(await page.getByRole('alert').count(), 0)

  // An address may name anybody, and a service that is just starting may not know the rooms yet.
  const stranger = await context.newPage()
  await stranger.route('**/rooms', async route => await route.fulfill({ status: 503, json: { message: 'later' } }), { times: 1 })
  await stranger.goto(new URL('/?user=nobody', page.url()).href)
  await stranger.getByRole('heading', { name: 'Workspace' }).waitFor()
  await stranger.getByRole('button', { name: 'Dan Ube' }).click()
  await stranger.getByRole('navigation', { name: 'Rooms' }).getByRole('button', { name: 'general' }).waitFor()
})
