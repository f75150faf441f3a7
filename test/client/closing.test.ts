import t from 'tap'
import type { Client, ConnectOptions } from '../../lib/client/index.ts'
import { until } from '../helpers/until.ts'
import { isOpen, recordedClient, scriptedServer, type Recording } from './scripted-server.ts'

t.test('close() from an option that is asked is final: `reconnect`, and `token` of a later attempt', async (t) => {
  const server = await scriptedServer(t)
  let calls = 0
  const closing = (): undefined => { client().close() }
  const cases: Array<[string, ConnectOptions]> = [
    ['reconnect', { reconnect: closing }],
    ['reconnect, and true', { reconnect: () => closing() ?? true }],
    ['token', { token: () => calls++ ? closing() : undefined }]
  ]
  let current: Recording | undefined
  const client = (): Client => (current as Recording).client
  for (const [what, options] of cases) {
    current = recordedClient(t, server.url, options)
    await isOpen(client())
    const before = server.peers.length
    server.peers.at(-1)?.ws.terminate()
    await until(() => client().state === 'closed', { what })
    await new Promise(resolve => setTimeout(resolve, 100))
    client().close()
    t.equal(current.events.state.at(-1)?.state, 'closed', what)
    t.equal(current.events.close.length, 1, what)
    t.equal(server.peers.length, before, what)
  }
})
