// What docs/operations.md shows for deploys; started by drain.test.ts.
import closeWithGrace from 'close-with-grace'
import Fastify from 'fastify'
import groupsHealth from '../../lib/operations/health.ts'
import websocketGroups from '../../plugin.ts'

const app = Fastify()
await app.register(websocketGroups)
await app.register(groupsHealth)
app.wsRoom('/ws/:room', { auth: false })
closeWithGrace({ delay: 30_000, logger: undefined }, async ({ err }) => {
  if (err === undefined) await app.registry.drain({ overMs: 2_000 })
  await app.close()
  process.disconnect()
})
process.send?.(await app.listen({ port: 0, host: '127.0.0.1' }))
