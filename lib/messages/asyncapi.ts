import { isStandard } from './schemas.ts'
import type { MessageSet } from './message-set.ts'
import type { AsyncApiDocument, AsyncApiOptions, MessageSchema } from '../types.ts'

type Json = Readonly<Record<string, unknown>>

/** A WebSocket route as the document describes it. */
export interface DocumentedRoute {
  readonly url: string
  readonly schema: Json
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
export function documentOf (routes: readonly DocumentedRoute[], shared: Json, options: AsyncApiOptions): AsyncApiDocument {
  const builder = new Builder(shared)
  for (const route of routes) builder.add(route)
  return builder.document(options)
}

class Builder {
  readonly #channels: Record<string, Json> = {}
  readonly #operations: Record<string, Json> = {}
  readonly #messages: Record<string, Json> = { error: errorMessage }
  readonly #schemas: Record<string, Json> = {}
  readonly #securitySchemes: Record<string, Json> = {}

  constructor (shared: Json) {
    for (const [name, schema] of Object.entries(shared)) this.#schemas[name] = inDocument(schema) as Json
  }

  add (route: DocumentedRoute): void {
    const { url, schema, security } = route
    const { address, parameters } = addressOf(url)
    const channel = uniqueName(nameOf(url), this.#channels)
    const messages: Record<string, Json> = {}
    Object.assign(this.#securitySchemes, security)
    const requirements = Object.keys(security).map(name => ({ $ref: `#/components/securitySchemes/${name}` }))
    const operate = (action: 'receive' | 'send', name: string, message: Json, reply?: Json): void => {
      this.#refer(channel, messages, name, message)
      if (reply !== undefined) this.#refer(channel, messages, `${name}.reply`, reply)
      const at = (of: string): Json => ({ $ref: `#/channels/${channel}/messages/${of}` })
      this.#operations[`${channel}.${action}.${name}`] = {
        action,
        channel: { $ref: `#/channels/${channel}` },
        ...(typeof message.description === 'string' ? { description: message.description } : {}),
        messages: [at(name)],
        ...(requirements.length === 0 ? {} : { security: requirements }),
        ...(reply === undefined
          ? {}
          : { reply: { channel: { $ref: `#/channels/${channel}` }, messages: [at(`${name}.reply`), at('error')] } })
      }
    }
    if (route.messages === undefined) {
      for (const action of ['receive', 'send'] as const) operate(action, 'message', anyMessage)
    } else {
      messages.error = { $ref: '#/components/messages/error' }
      for (const { name, definition: { data, reply, description } } of route.messages.messages.values()) {
        operate('receive', name, messageOf(name, data, 'input', { id: idSchema, key: keySchema }, description), replyOf(name, reply))
      }
      for (const { name, schema } of route.messages.events.values()) operate('send', name, messageOf(name, schema, 'output'))
      for (const { name, schemas: { data, reply } } of route.messages.asked.values()) {
        const question = messageOf(name, data as MessageSchema | undefined, 'output', { id: idSchema })
        operate('send', name, question, replyOf(name, reply as MessageSchema | undefined, 'input'))
      }
    }
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
          ...(isObjectSchema(schema.querystring) ? { query: inDocument(schema.querystring) } : {}),
          ...(isObjectSchema(schema.headers) ? { headers: inDocument(schema.headers) } : {})
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

  /** Adds the message under a key of its channel, as messages of different routes may have the same name. */
  #refer (channel: string, messages: Record<string, Json>, name: string, message: Json): void {
    const key = `${channel}.${name}`
    this.#messages[key] = message
    messages[name] = { $ref: `#/components/messages/${key}` }
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

/** `side`: of the schema, as whoever replies sees it. */
function replyOf (name: string, schema: MessageSchema | undefined, side: 'input' | 'output' = 'output'): Json {
  const reply = messageOf('reply', schema, side, { id: idSchema })
  return { ...reply, title: `reply to ${name}` }
}

/** JSON Schema of the data. A Standard Schema without its JSON Schema extension becomes `{}`: anything. */
function jsonSchemaOf (schema: Exclude<MessageSchema, 'binary'>, side: 'input' | 'output'): unknown {
  if (!isStandard(schema)) return inDocument(schema)
  const { jsonSchema } = schema['~standard'] as { readonly jsonSchema?: Record<typeof side, (options: object) => object> }
  const { $schema, ...described } = jsonSchema?.[side]({ target: 'draft-07' }) as Json ?? {}
  return inDocument(described)
}

/** A copy whose references to shared schemas lead to the components of the document. */
function inDocument (schema: unknown): unknown {
  return JSON.parse(JSON.stringify(schema), (key, value: unknown) => {
    if (key !== '$ref' || typeof value !== 'string' || value.startsWith('#')) return value
    const [name = '', path = ''] = value.split('#')
    return `#/components/schemas/${name}${path}`
  }) as unknown
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
    .replace(/:([^/:.()-]+)(\((?:[^()]|\([^()]*\))*\))?\??/g, (_match, name: string) => `{${parameters[parameters.push(name) - 1] ?? ''}}`)
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
