import fastifyStatic from '@fastify/static'
import type { FastifyPluginAsync } from 'fastify'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The folder of the package's builds, among them the browser client in one file, for pages without a bundler. */
const dist = fileURLToPath(new URL('dist/', import.meta.resolve('fastify-websocket-groups/package.json')))

// The page consists of its own files alone. 'self' covers the WebSocket to the same host, too.
const contentSecurityPolicy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; " +
  "form-action 'self'; frame-ancestors 'none'"

/** The chat page at `/`, and the client that it imports. */
export const page: FastifyPluginAsync = async app => {
  await app.register(fastifyStatic, {
    root: join(import.meta.dirname, 'public'),
    setHeaders (reply) {
      reply.header('content-security-policy', contentSecurityPolicy)
      reply.header('x-content-type-options', 'nosniff')
    }
  })

  app.get('/client.js', async (_request, reply) => await reply.sendFile('client.min.js', dist))
}
