import type { preHandlerAsyncHookHandler } from 'fastify'
import { WebsocketGroupsError } from '../errors.ts'

/**
 * Makes the hook that asks `auth`, which refuses by an error or a reply. Returning `false` refuses, too: with `async request =>
 * isAdmin(request)` nobody means to let everybody in. A hook with a callback stays as it is: plugins for authentication make them.
 */
export function authHook (auth: preHandlerAsyncHookHandler): preHandlerAsyncHookHandler {
  if (auth.length > 2) return auth
  return async function (request, reply) {
    if (await auth.call(this, request, reply) as unknown === false) throw new WebsocketGroupsError('WSG_FORBIDDEN', 'auth returned false')
  }
}
