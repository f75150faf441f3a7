// One instance, for the drills: in this process, or as a process of its own: PORT=… REDIS=… node --import ./scripts/typescript.mjs
// test/faults/drill/instance.ts
import Fastify, { type FastifyInstance } from 'fastify'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import websocketGroups from '../../../plugin.ts'
import { forkProgram } from '../../helpers/child.ts'

const file = fileURLToPath(import.meta.url)

export async function startInstance (port: number, redis: string): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(websocketGroups, { redis })
  app.get<{ Params: { room: string } }>('/ws/:room', { websocket: true }, app.wsHandler({
    async onConnect (connection) { await app.registry.join(connection, connection.params.room ?? '') },
    onMessage () {},
    mayJoin: () => true
  }))
  await app.listen({ port, host: '127.0.0.1' })
  return app
}

/** Resolves when it listens. It ends with this process at the latest. */
export async function forkInstance (port: number, redis: string): Promise<ChildProcess> {
  const child = forkProgram(file, [], { env: { PORT: String(port), REDIS: redis } })
  const [message] = await once(child, 'message', { signal: AbortSignal.timeout(30_000) })
  if (message !== 'listening') throw new Error(`the instance said ${String(message)}`)
  return child
}

if (process.argv[1] === file) {
  const app = await startInstance(Number(process.env.PORT), process.env.REDIS ?? '')
  process.once('SIGTERM', () => { void app.close().then(() => process.exit()) })
  process.once('disconnect', () => process.exit())
  process.send?.('listening')
}
