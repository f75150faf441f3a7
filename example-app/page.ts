import fastifyStatic from '@fastify/static'
import type { FastifyPluginAsync } from 'fastify'
import { join } from 'node:path'

// The page is three files of ours and nothing else; 'self' covers the WebSocket to the same host too.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

/** The chat page at `/`. */
export const page: FastifyPluginAsync = async app => {
  await app.register(fastifyStatic, {
    root: join(import.meta.dirname, 'public'),
    setHeaders (reply) {
      reply.header('content-security-policy', contentSecurityPolicy)
      reply.header('x-content-type-options', 'nosniff')
    }
  })
}
