import type { FastifyInstance } from 'fastify'
import type { BroadcastOptions, BroadcastResult } from 'fastify-websocket-groups'

/** Sends a line to everyone in the room, on every instance, and logs how many of them this instance serves, and how many others do. */
export async function broadcast (
  app: FastifyInstance, group: string, text: string, options: BroadcastOptions = {}
): Promise<BroadcastResult> {
  // Without Redis the count is the last one that is known; without any, the line says so.
  const totalInGroup = await app.registry.groupCount(group).catch(() => undefined)
  app.log.info({ group, totalInGroup }, 'broadcasting')
  const result = await app.registry.broadcastToGroup(group, text, options)
  const { localRecipients: localSent, instances, scope } = result
  const remotePending = totalInGroup === undefined ? undefined : Math.max(totalInGroup - localSent, 0)
  app.log.info({ group, localSent, remotePending, instances, scope }, 'broadcast')
  return result
}

/** The same for those who could not be told that it failed: without Redis, at least those on this instance hear it. */
export async function broadcastAnyway (app: FastifyInstance, group: string, text: string): Promise<BroadcastResult> {
  try {
    return await broadcast(app, group, text)
  } catch (error) {
    // With this code nobody has it yet. Volatile: the policy `outage.broadcast` applies, which is 'local'.
    if (!hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE')) throw error
    return await broadcast(app, group, text, { volatile: true })
  }
}

export function hasCode (error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code))
}
