// An instance of the drill's cluster: drill-program.ts <label> <Redis URL>; started by drill-page.test.ts.
import Fastify from 'fastify'
import groupsDashboard from '../../lib/operations/dashboard.ts'
import websocketGroups from '../../plugin.ts'

const [, , instanceLabel = '', redis = ''] = process.argv
process.on('disconnect', () => process.exit(1))
const app = Fastify()
await app.register(websocketGroups, {
  redis,
  instanceLabel,
  operationTimeoutMs: 500,
  authenticate: token => ({ userId: token }),
  limits: { messages: { perSecond: 10, burst: 20 } }
})
app.wsRoom('/ws/:room', { auth: { required: false }, group: ({ room }) => room })
await app.register(groupsDashboard, {
  prefix: '/admin', key: 'the drill of the suite', everyMs: 200, auth: async () => {}, allow: () => true
})
process.on('message', () => { void app.registry.drain({ overMs: 1_000 }) })
process.send?.(await app.listen({ port: 0, host: '127.0.0.1' }))
