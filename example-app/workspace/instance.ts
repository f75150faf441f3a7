import cluster from 'node:cluster'
import { closeOnSignal } from '../signals.ts'
import { redisUrl } from './settings.ts'
import { buildWorkspace } from './workspace.ts'

// One instance, in a process of its own: start.ts runs two, which share a port.
const { app } = await buildWorkspace({
  redis: redisUrl, instance: process.env.INSTANCE ?? 'inst', logLevel: process.env.LOG_LEVEL || 'info'
})

closeOnSignal(async () => {
  // #region Rolling deploy
  app.server.close()                                // New clients go to the other instances from now on,
  await app.registry.drain({ overMs: 1_000 })       // and the clients here follow one by one, each told when to come back.
  await app.close()
  // #endregion
  cluster.worker?.disconnect()
})

await app.listen({ host: process.env.HOST || '127.0.0.1', port: Number(process.env.PORT) })
