import type { FastifyInstance, FastifySchemaCompiler, FastifySerializerCompiler } from 'fastify'
import { invalid } from '../options/rules.ts'
import type { MessagesOptions } from '../types/messages.ts'

/** Compiles schemas, as Fastify does for the routes of a scope. */
export interface Compilers {
  validator (schema: object): ((data: unknown) => unknown) & { readonly errors?: unknown }
  serializer (schema: object): (data: unknown) => string
}

/** Fastify keeps one for each scope, under a symbol. */
interface SchemaController {
  setupValidator (options: object): void
  setupSerializer (options: object): void
}

/**
 * The compilers of a scope, with its shared schemas. Call when all plugins are loaded.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID
 */
export function compilersOf (scope: FastifyInstance, { validatorCompiler, serializerCompiler }: MessagesOptions): Compilers {
  if (validatorCompiler === undefined || serializerCompiler === undefined) setUp(scope)
  const validate = (validatorCompiler ?? scope.validatorCompiler) as FastifySchemaCompiler<object> | undefined
  const serialize = (serializerCompiler ?? scope.serializerCompiler) as FastifySerializerCompiler<object> | undefined
  if (validate === undefined || serialize === undefined) {
    throw invalid('wsMessages needs the options validatorCompiler and serializerCompiler with this version of Fastify')
  }
  const route = { method: 'GET', url: scope.prefix }
  return {
    validator: schema => validate({ schema, ...route, httpPart: 'body' }) as ReturnType<Compilers['validator']>,
    serializer: schema => serialize({ schema, ...route, httpStatus: '200', contentType: 'application/json' }) as (data: unknown) => string
  }
}

/**
 * Makes Fastify set up the compilers of a scope. Fastify does so by itself only for routes with schemas of requests and responses, which
 * WebSocket routes do not have, and there is no public way to ask for it.
 */
function setUp (scope: FastifyInstance): void {
  const controller = hidden<SchemaController>(scope, 'fastify.schemaController')
  const options = hidden<object>(scope, 'fastify.options')
  if (controller === undefined || options === undefined) return
  controller.setupValidator(options)
  controller.setupSerializer(options)
}

/** What Fastify keeps under the symbol: looks in the scope and in the scopes around it, which are its prototypes. */
export function hidden<Value> (scope: object, description: string): Value | undefined {
  for (let at: object | null = scope; at !== null; at = Object.getPrototypeOf(at) as object | null) {
    const symbol = Object.getOwnPropertySymbols(at).find(one => one.description === description)
    if (symbol !== undefined) return (at as Record<symbol, Value>)[symbol]
  }
  return undefined
}
