import type { FastifyInstance } from 'fastify'
import type { BroadcastResult } from 'fastify-websocket-groups'

/** Sends a line to everyone in the room, on every instance, and logs how many of them this instance has. */
export async function broadcast (app: FastifyInstance, group: string, text: string): Promise<BroadcastResult> {
  const result = await app.registry.broadcastToGroup(group, text)
  app.log.info({ group, localRecipients: result.localRecipients, instances: result.instances, scope: result.scope }, 'broadcast')
  return result
}
