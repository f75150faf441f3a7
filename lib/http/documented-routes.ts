import type { FastifyInstance, RouteOptions } from 'fastify'
import { documentOf, type DocumentedRoute } from '../messages/asyncapi.ts'
import { securityOf } from './security-schemes.ts'
import { messagesOf } from './ws-handler.ts'

/**
 * Makes `app.asyncapi`, and the hook for `onRoute` that collects the routes for the document. The hook has to come before
 * that of @fastify/websocket, which hides the schemas of its routes: see `addRouteHooks`.
 */
export function documentRoutes (): {
  readonly asyncapi: FastifyInstance['asyncapi']
  collect (this: FastifyInstance, route: RouteOptions): void
} {
  const routes: DocumentedRoute[] = []
  const scopes = new Set<FastifyInstance>()
  return {
    asyncapi (options = {}) {
      const shared = Object.assign({}, ...[...scopes].map(scope => scope.getSchemas())) as Record<string, unknown>
      return documentOf(routes, shared, options)
    },
    collect (route) {
      const { url, method, handler, schema = {}, onRequest, preValidation, preHandler } = route
      const messages = messagesOf(handler)
      if (messages === undefined) return
      // @fastify/websocket writes `hide` into it, and other routes may have the same object.
      route.schema = { ...schema }
      if (method === 'HEAD' || ('hide' in schema && schema.hide === true)) return
      scopes.add(this)
      routes.push({
        url,
        schema: { ...schema },
        messages: messages === 'any' ? undefined : messages,
        security: securityOf([onRequest, preValidation, preHandler].flat())
      })
    }
  }
}
