import { isStandard } from './schemas.ts'
import type { MessageSet } from './message-set.ts'
import type { AsyncApiDocument, AsyncApiOptions, MessageSchema } from '../types.ts'

type Json = Readonly<Record<string, unknown>>

/** A WebSocket route as the document describes it. */
export interface DocumentedRoute {
  readonly url: string
  readonly schema: Json
  /** The shared schemas of the route's scope, by `$id`. Those of its messages are in the scope of the set. */
  readonly shared: Json
  /** `undefined`: the route takes messages of any kind. */
  readonly messages: MessageSet | undefined
  /** Security schemes by name: a client needs one of them. Empty: no client needs any. */
  readonly security: Readonly<Record<string, Json>>
}

const bindingVersion = '0.1.0'
const idSchema = { oneOf: [{ type: 'integer' }, { type: 'string', maxLength: 64 }] }
const keySchema = { type: 'string', minLength: 1, maxLength: 64, description: 'Messages of one client with the same key are handled once.' }

const errorMessage = {
  name: 'error',
  title: 'error',
  summary: 'Why a message was not handled.',
  correlationId: { location: '$message.payload#/id' },
  payload: {
    type: 'object',
    required: ['type', 'code', 'message'],
    properties: {
      type: { type: 'string', const: 'error' }, id: idSchema, code: { type: 'string' }, message: { type: 'string' }, details: {}
    }
  }
}

/** Makes an AsyncAPI 3.0 document: each route is a channel, each message and each event an operation. */
export function documentOf (routes: readonly DocumentedRoute[], options: AsyncApiOptions): AsyncApiDocument {
  const builder = new Builder()
  for (const route of routes) builder.add(route)
  return builder.document(options)
}

class Builder {
  readonly #channels: Record<string, Json> = {}
  readonly #operations: Record<string, Json> = {}
  readonly #messages: Record<string, Json> = { error: errorMessage }
  readonly #schemas: Record<string, Json> = {}
  readonly #securitySchemes: Record<string, Json> = {}
  /** The name of each shared schema. A scope inherits those of its parents, and may give an `$id` to another one than its neighbour. */
  readonly #names = new Map<unknown, string>()
  /** Where the document has the schemas of the scope that is described, by their `$id`. */
  #shared = new Map<string, string>()

  add (route: DocumentedRoute): void {
    const { url, schema, shared, security } = route
    const { address, parameters } = addressOf(url)
    const channel = uniqueName(nameOf(url), this.#channels)
    const messages: Record<string, Json> = {}
    const requirements = Object.entries(security).map(([name, scheme]) => {
      const key = keyOf(name)
      this.#securitySchemes[key] = scheme
      return { $ref: `#/components/securitySchemes/${key}` }
    })
    const operate = (action: 'receive' | 'send', name: string, message: Json, reply?: Json): void => {
      const own = this.#refer(channel, messages, name, message)
      const answer = reply === undefined ? undefined : this.#refer(channel, messages, `${name}.reply`, reply)
      const at = (key: string): Json => ({ $ref: `#/channels/${channel}/messages/${key}` })
      this.#operations[uniqueName(keyOf(`${channel}.${action}.${name}`), this.#operations)] = {
        action,
        channel: { $ref: `#/channels/${channel}` },
        ...(typeof message.description === 'string' ? { description: message.description } : {}),
        messages: [at(own)],
        ...(requirements.length === 0 ? {} : { security: requirements }),
        ...(answer === undefined ? {} : { reply: { channel: { $ref: `#/channels/${channel}` }, messages: [at(answer), at('error')] } })
      }
    }
    if (route.messages === undefined) {
      for (const action of ['receive', 'send'] as const) operate(action, 'message', anyMessage)
    } else {
      messages.error = { $ref: '#/components/messages/error' }
      this.#enter(route.messages.scope.getSchemas() as Json)
      for (const { name, definition: { data, reply, description } } of route.messages.messages.values()) {
        operate('receive', name, messageOf(name, data, 'input', { id: idSchema, key: keySchema }, description), replyOf(name, reply))
      }
      for (const { name, schema } of route.messages.events.values()) operate('send', name, messageOf(name, schema, 'output'))
      for (const { name, schemas: { data, reply } } of route.messages.asked.values()) {
        const question = messageOf(name, data as MessageSchema | undefined, 'output', { id: idSchema, group: { type: 'string' } })
        operate('send', name, question, replyOf(name, reply as MessageSchema | undefined, 'input'))
      }
    }
    this.#enter(shared)
    const bindings = `#/channels/${channel}/bindings/ws`
    this.#channels[channel] = {
      address,
      ...textsOf(schema),
      ...(parameters.length === 0
        ? {}
        : { parameters: Object.fromEntries(parameters.map(name => [name, parameterOf(name, schema.params)])) }),
      messages,
      bindings: {
        ws: {
          method: 'GET',
          bindingVersion,
          ...(isObjectSchema(schema.querystring) ? { query: this.#placed(schema.querystring, `${bindings}/query`) } : {}),
          ...(isObjectSchema(schema.headers) ? { headers: this.#placed(schema.headers, `${bindings}/headers`) } : {})
        }
      }
    }
  }

  document ({ info = { title: 'WebSocket API', version: '1.0.0' }, servers, id }: AsyncApiOptions): AsyncApiDocument {
    return {
      asyncapi: '3.0.0',
      ...(id === undefined ? {} : { id }),
      info,
      defaultContentType: 'application/json',
      ...(servers === undefined ? {} : { servers }),
      channels: this.#channels,
      operations: this.#operations,
      components: { messages: this.#messages, schemas: this.#schemas, securitySchemes: this.#securitySchemes }
    }
  }

  /** References lead to these shared schemas from now on. Adds those that the document does not have yet. */
  #enter (shared: Json): void {
    const added: Array<readonly [string, unknown]> = []
    this.#shared = new Map(Object.entries(shared).map(([id, schema]) => {
      const name = this.#names.get(schema) ?? uniqueName(keyOf(id), this.#schemas)
      if (!this.#names.has(schema)) {
        this.#schemas[name] = {}
        added.push([name, schema])
      }
      this.#names.set(schema, name)
      return [id.replace(/#$/, ''), `#/components/schemas/${name}`]
    }))
    for (const [name, schema] of added) this.#schemas[name] = this.#placed(schema, `#/components/schemas/${name}`)
  }

  /**
   * Adds the message under a key of its channel, as messages of different routes may have the same name, and so may a message and an event.
   * Returns its key in the channel.
   */
  #refer (channel: string, messages: Record<string, Json>, name: string, message: Json): string {
    // A route that takes messages of any kind has the same message in both directions.
    if (message === anyMessage && messages.message !== undefined) return 'message'
    const key = uniqueName(keyOf(`${channel}.${name}`), this.#messages)
    const own = uniqueName(keyOf(name), messages)
    const at = `#/components/messages/${key}`
    this.#messages[key] = this.#placed(message, at, `${at}/payload/properties/data`)
    messages[own] = { $ref: at }
    return own
  }

  /**
   * Copies a part of the document that will stand at `at`, and makes its references lead to where the document has their targets. `root`:
   * where a bare `#` leads. Drops each `$id`: references would count from it.
   */
  #placed (value: unknown, at: string, root = at): Json {
    const inside = idsIn(value, at)
    return JSON.parse(JSON.stringify(value), (key, part: unknown) => {
      if (typeof part !== 'string') return part
      if (key === '$id') return undefined
      if (key !== '$ref') return part
      const [id = '', path = ''] = part.split('#')
      const base = id === '' ? root : inside.get(id) ?? this.#shared.get(id) ?? `#/components/schemas/${keyOf(id)}`
      return base + path
    }) as Json
  }
}

const anyMessage: Json = { name: 'message', title: 'message', summary: 'Text or bytes of any form.', payload: {} }

/** The message as raw clients, those without the framed protocol, send and receive it. */
function messageOf (
  name: string, schema: MessageSchema | undefined, side: 'input' | 'output', more: Json = {}, description?: string
): Json {
  const head = { name, title: name, ...(description === undefined ? {} : { description }) }
  const correlation = 'id' in more ? { correlationId: { location: '$message.payload#/id' } } : {}
  const fields = { type: { type: 'string', const: name }, ...more }
  if (schema === 'binary') {
    const summary = 'Bytes: a line of JSON with these fields, a line feed, and the bytes behind it.'
    const payload = { type: 'object', required: ['type'], properties: fields }
    return { ...head, summary, contentType: 'application/octet-stream', ...correlation, payload }
  }
  const data = schema === undefined ? {} : jsonSchemaOf(schema, side)
  const required = schema === undefined ? ['type'] : ['type', 'data']
  return { ...head, ...correlation, payload: { type: 'object', required, properties: { ...fields, data } } }
}

/** `side` of the schema: `output` for replies of the server, which the schema has let through, `input` for those of clients. */
function replyOf (name: string, schema: MessageSchema | undefined, side: 'input' | 'output' = 'output'): Json {
  const reply = messageOf('reply', schema, side, { id: idSchema })
  return { ...reply, title: `reply to ${name}` }
}

/** Returns the JSON Schema of the data; `{}`, which allows anything, if a Standard Schema has no form in JSON Schema. */
function jsonSchemaOf (schema: Exclude<MessageSchema, 'binary'>, side: 'input' | 'output'): unknown {
  if (!isStandard(schema)) return schema
  const { jsonSchema } = schema['~standard'] as { readonly jsonSchema?: Record<typeof side, (options: object) => object> }
  try {
    // Zod tells all but the parts that JSON has no word for, such as dates.
    const options = { target: 'draft-07', libraryOptions: { unrepresentable: 'any' } }
    const { $schema, ...described } = jsonSchema?.[side](options) as Json ?? {}
    return described
  } catch {
    return {} // the schema as a whole has no form in JSON Schema
  }
}

/** Returns where the parts of a schema are that have an `$id` of their own, by that id. */
function idsIn (value: unknown, at: string, found = new Map<string, string>()): ReadonlyMap<string, string> {
  if (typeof value !== 'object' || value === null) return found
  const { $id } = value as Json
  if (typeof $id === 'string') found.set($id.replace(/#$/, ''), at)
  for (const [key, part] of Object.entries(value)) idsIn(part, `${at}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`, found)
  return found
}

/** The name as a key of the document's components. */
function keyOf (name: string): string {
  return name.replace(/[^\w.-]/g, '_')
}

function isObjectSchema (schema: unknown): boolean {
  return typeof schema === 'object' && schema !== null && 'properties' in schema
}

function textsOf ({ summary, description, title }: Json): Json {
  return Object.fromEntries(Object.entries({ title, summary, description }).filter(([, text]) => typeof text === 'string'))
}

/** Parameters are strings in AsyncAPI: of the schema only the description and the allowed values remain. */
function parameterOf (name: string, params: unknown): Json {
  const { properties = {} } = (isObjectSchema(params) ? params : {}) as { readonly properties?: Record<string, Json> }
  const { description, enum: values } = properties[name] ?? {}
  return {
    ...(typeof description === 'string' ? { description } : {}),
    ...(Array.isArray(values) ? { enum: values.map(String) } : {})
  }
}

/** Turns a URL of Fastify, `/ws/:room`, into an address of AsyncAPI, `/ws/{room}`. */
function addressOf (url: string): { readonly address: string, readonly parameters: readonly string[] } {
  const parameters: string[] = []
  const address = url
    // Two colons are a colon.
    .replace(/::|:([^/:.()-]+)(\((?:[^()]|\([^()]*\))*\))?\??/g, (match, name?: string) => (
      name === undefined ? match.slice(1) : `{${parameters[parameters.push(name) - 1] ?? ''}}`
    ))
    .replace(/\*$/, () => `{${parameters[parameters.push('path') - 1] ?? ''}}`)
  return { address, parameters }
}

function nameOf (url: string): string {
  return url.replace(/\([^/]*\)/g, '').replace(/[^\w]+/g, '_').replace(/^_|_$/g, '') || 'root'
}

function uniqueName (name: string, taken: object): string {
  if (!Object.hasOwn(taken, name)) return name
  for (let n = 2; ; n++) if (!Object.hasOwn(taken, `${name}_${n}`)) return `${name}_${n}`
}
