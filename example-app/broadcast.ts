import type { FastifyInstance } from 'fastify'
import type { BroadcastOptions, BroadcastResult } from 'fastify-websocket-groups'

/** Sends a line to everyone in the room, on every instance, and logs how many of them are on this instance and how many on others. */
export async function broadcast (
  app: FastifyInstance, group: string, text: string, options: BroadcastOptions = {}
): Promise<BroadcastResult> {
  // Without Redis this is the last count that is known, and undefined if there is none.
  const totalInGroup = await app.registry.groupCount(group).catch(() => undefined)
  app.log.info({ group, totalInGroup }, 'broadcasting')
  const result = await app.registry.broadcastToGroup(group, text, options)
  const { localRecipients: localSent, instances, scope } = result
  const remotePending = totalInGroup === undefined ? undefined : Math.max(totalInGroup - localSent, 0)
  app.log.info({ group, localSent, remotePending, instances, scope }, 'broadcast')
  return result
}

/** As `broadcast`, for senders who cannot be told of a failure: without Redis, at least the members on this instance get the line. */
export async function broadcastAnyway (app: FastifyInstance, group: string, text: string): Promise<BroadcastResult> {
  try {
    return await broadcast(app, group, text)
  } catch (error) {
    // This code says that nobody got the line. A volatile message follows the policy `outage.broadcast`, which is 'local' by default.
    if (!hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE')) throw error
    return await broadcast(app, group, text, { volatile: true })
  }
}

export function hasCode (error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code))
}
