import type { FastifyReply, FastifyRequest } from 'fastify'

/** Keeps answers out of the caches of browsers and proxies: messages and names of users are in them. */
export async function notStored (_request: FastifyRequest, reply: FastifyReply): Promise<void> {
  reply.header('cache-control', 'no-store')
}
