import type { FastifyInstance, onRouteHookHandler } from 'fastify'
import type { EventEmitter } from 'node:events'

/** The hooks of a scope and of the scopes around it. */
interface ScopeHooks {
  readonly onRoute: onRouteHookHandler[]
  readonly onRequest: readonly unknown[]
  readonly preValidation: readonly unknown[]
  readonly preHandler: readonly unknown[]
}

/** Makes the compilers that a scope has for its schemas. */
interface SchemaController {
  setupValidator (options: object): void
  setupSerializer (options: object): void
}

/** Parts that Fastify keeps under symbols and offers no public way to. Each is `undefined` in a version of Fastify without its symbol. */
interface ScopeInternals {
  readonly hooks: ScopeHooks | undefined
  readonly schemaController: SchemaController | undefined
  readonly options: object | undefined
  /** The servers beside `app.server`, one for each further address: `localhost` is an IPv4 and an IPv6 address. */
  readonly otherServers: readonly EventEmitter[] | undefined
}

export function internalsOf (scope: FastifyInstance): ScopeInternals {
  return {
    hooks: underSymbol<ScopeHooks>(scope, 'fastify.hooks'),
    schemaController: underSymbol<SchemaController>(scope, 'fastify.schemaController'),
    options: underSymbol<object>(scope, 'fastify.options'),
    otherServers: underSymbol<readonly EventEmitter[]>(scope, 'fastify.serverBindings')
  }
}

/** Looks in the scope and in the scopes around it, which are its prototypes. */
function underSymbol<Value> (scope: object, description: string): Value | undefined {
  for (let at: object | null = scope; at !== null; at = Object.getPrototypeOf(at) as object | null) {
    const symbol = Object.getOwnPropertySymbols(at).find(one => one.description === description)
    if (symbol !== undefined) return (at as Record<symbol, Value>)[symbol]
  }
  return undefined
}
