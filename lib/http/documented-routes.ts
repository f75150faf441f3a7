import type { FastifyInstance, RouteOptions } from 'fastify'
import { internalsOf } from '../fastify-internals.ts'
import { documentOf, type DocumentedRoute } from '../messages/asyncapi.ts'
import { securityOf } from './security-schemes.ts'
import { messagesOf } from './ws-handler.ts'

interface Collected extends Omit<DocumentedRoute, 'security' | 'shared'> {
  readonly scope: FastifyInstance
  /** The hooks of the route itself. */
  readonly hooks: readonly unknown[]
}

/**
 * Makes `app.asyncapi`, and the hook for `onRoute` that collects the routes for the document. The hook has to come before
 * that of @fastify/websocket, which hides the schemas of its routes: see `addRouteHooks`.
 */
export function documentRoutes (): {
  readonly asyncapi: FastifyInstance['asyncapi']
  collect (this: FastifyInstance, route: RouteOptions): void
} {
  const routes: Collected[] = []
  return {
    asyncapi (options = {}) {
      return documentOf(routes.map(({ scope, hooks, ...route }) => (
        { ...route, shared: scope.getSchemas(), security: securityOf([...hooksOf(scope), ...hooks]) }
      )), options)
    },
    collect (route) {
      const { url, method, handler, schema = {}, onRequest, preValidation, preHandler } = route
      const messages = messagesOf(handler)
      if (messages === undefined) return
      // @fastify/websocket writes `hide` into it, and other routes may have the same object.
      route.schema = { ...schema }
      if (method === 'HEAD' || ('hide' in schema && schema.hide === true)) return
      routes.push({
        scope: this,
        url,
        schema: { ...schema },
        messages: messages === 'any' ? undefined : messages,
        hooks: [onRequest, preValidation, preHandler].flat()
      })
    }
  }
}

/** The hooks of a scope that run before a handler: any of them may ask for a token. Complete when all plugins are loaded. */
function hooksOf (scope: FastifyInstance): unknown[] {
  const { hooks } = internalsOf(scope)
  return hooks === undefined ? [] : [hooks.onRequest, hooks.preValidation, hooks.preHandler].flat()
}
