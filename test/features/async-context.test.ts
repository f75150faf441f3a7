import t, { type Test } from 'tap'
import { AsyncLocalStorage } from 'node:async_hooks'
import websocketGroups from '../../plugin.ts'
import { connect } from '../helpers/client.ts'
import { bareService } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

interface Seen { readonly [callback: string]: string | undefined }

/** What each callback of a connection finds in the storage that an `onRequest` hook filled. */
async function seenBy (t: Test, protocols: string[], messages: string[]): Promise<Seen> {
  const storage = new AsyncLocalStorage<string>()
  const seen: Record<string, string | undefined> = {}
  const { app, listen } = bareService(t)
  app.addHook('onRequest', (request, _reply, done) => storage.run(request.url, done))
  await app.register(websocketGroups, { closeGraceMs: 100 })
  const see = (name: string): void => { seen[name] = storage.getStore() }
  app.get('/ws/:room', { websocket: true }, app.wsHandler({
    async onConnect (connection) {
      see('connect')
      await app.registry.join(connection, 'room')
    },
    onMessage (_, data) {
      see(`message ${data}`)
      if (data === 'throw') throw new Error('no')
      return data === 'wait' ? new Promise(resolve => setTimeout(resolve, 20)) : undefined
    },
    onError () {
      see('error')
      return true
    },
    mayJoin () {
      see('mayJoin')
      return true
    },
    onDisconnect () { see('disconnect') }
  }))
  const client = connect(t, `${await listen()}/ws/a`, { protocols })
  await client.opened
  for (const message of messages) {
    client.send(message)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  client.close()
  await until(() => 'disconnect' in seen)
  return seen
}

t.test('callbacks of a raw connection run in the async context of its upgrade request', async t => {
  const seen = await seenBy(t, [], ['one', 'wait', 'behind', 'throw', 'two'])
  t.strictSame(new Set(Object.values(seen)), new Set(['/ws/a']), JSON.stringify(seen))
  t.equal(Object.keys(seen).length, 8)
})

t.test('so do those of a framed one, whose first callback waits for the hello', async t => {
  const frames = [
    { type: 'hello' }, { type: 'message', data: 'one' }, { type: 'message', data: 'wait' }, { type: 'message', data: 'behind' },
    { type: 'join', group: 'other', id: 1 }, { type: 'message', data: 'throw' }
  ]
  const seen = await seenBy(t, ['wsg.v1'], frames.map(frame => JSON.stringify(frame)))
  t.strictSame(new Set(Object.values(seen)), new Set(['/ws/a']), JSON.stringify(seen))
  t.equal(Object.keys(seen).length, 8)
})
