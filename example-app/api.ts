import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import groupsApi from 'fastify-websocket-groups/api'
import { serviceToken } from './tokens.ts'

/** Routes for services in other languages. Their token allows to send to everybody, so it is not the token of a user. */
export const api: FastifyPluginAsync = async app => {
  await app.register(groupsApi, { prefix: '/api', auth: requireService })
}

async function requireService ({ headers }: FastifyRequest): Promise<void> {
  if (headers.authorization === `Bearer ${serviceToken}`) return
  throw Object.assign(new Error('only for services'), { statusCode: 401 })
}
