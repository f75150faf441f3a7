import websocket, { type WebsocketPluginOptions } from '@fastify/websocket'
import type { FastifyInstance, onRouteHookHandler } from 'fastify'
import { internalsOf } from '../fastify-internals.ts'
import { invalid } from '../options/rules.ts'

/**
 * Adds hooks that see routes before @fastify/websocket wraps their handlers and hides their schemas, also where the application registered
 * that plugin already. Fastify adds a hook behind the others, and has no public way to add one in front of them.
 */
export function addRouteHooks (app: FastifyInstance, ...added: onRouteHookHandler[]): void {
  for (const hook of added) app.addHook('onRoute', hook)
  if (!app.hasDecorator('websocketServer')) return
  const { hooks } = internalsOf(app)
  hooks?.onRoute.unshift(...hooks.onRoute.splice(-added.length))
}

/**
 * Registers @fastify/websocket, unless the application did. An application that registers it later gets an error that says so; Fastify's
 * error, "The decorator 'ws' has already been added!", would not say who added it.
 */
export async function registerWebsocket (app: FastifyInstance, options: WebsocketPluginOptions): Promise<void> {
  if (!app.hasDecorator('websocketServer')) await app.register(websocket, options)
  const { decorateRequest } = app
  app.decorateRequest = function (this: FastifyInstance, ...args: unknown[]) {
    if (args[0] !== 'ws') return Reflect.apply(decorateRequest, this, args) as FastifyInstance
    throw invalid(
      'the application registers @fastify/websocket after fastify-websocket-groups, which has registered it already: ' +
      'leave it out, with its options in `options`, or register it before'
    )
  } as FastifyInstance['decorateRequest']
}
