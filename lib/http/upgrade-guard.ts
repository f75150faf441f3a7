import type { FastifyRequest, onRequestHookHandler } from 'fastify'
import { WebsocketGroupsError } from '../errors.ts'
import type { GroupRegistry } from '../registry.ts'

const notReadySeconds = 5

/** Makes the hook that refuses upgrades while this instance takes none, before anything else looks at them. */
export function upgradeGuard (registry: Pick<GroupRegistry, 'ready' | 'metrics'>): onRequestHookHandler {
  return (request, reply, done) => {
    if (!isUpgrade(request) || registry.ready) return done()
    registry.metrics.upgradesRefused++
    reply.header('retry-after', notReadySeconds)
    done(new WebsocketGroupsError('WSG_REFUSED'))
  }
}

export function isUpgrade (request: FastifyRequest): boolean {
  return request.headers.upgrade?.toLowerCase() === 'websocket'
}
