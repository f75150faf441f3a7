import type { FastifyInstance, FastifySchemaCompiler, FastifySerializerCompiler } from 'fastify'
import { internalsOf } from '../fastify-internals.ts'
import { invalid } from '../options/rules.ts'
import type { MessagesOptions } from '../types/messages.ts'

/** Compiles schemas, as Fastify does for the routes of a scope. */
export interface Compilers {
  validator (schema: object): ((data: unknown) => unknown) & { readonly errors?: unknown }
  serializer (schema: object): (data: unknown) => string
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
  const { schemaController, options } = internalsOf(scope)
  if (schemaController === undefined || options === undefined) return
  schemaController.setupValidator(options)
  schemaController.setupSerializer(options)
}
