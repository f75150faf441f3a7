import type { FastifySchema } from 'fastify'

/** Where a message goes: one of these. */
type PublishTarget =
  | { readonly group: string } | { readonly groups: readonly string[] } | { readonly userId: string } | { readonly all: true }

export interface PublishBody {
  readonly to: PublishTarget
  readonly data?: unknown
  readonly base64?: string
  readonly except?: ReadonlyArray<{ readonly userId: string } | { readonly group: string } | string>
  readonly filter?: { readonly tags: readonly string[] }
  readonly from?: { readonly userId?: string, readonly connectionId?: string }
  readonly volatile?: boolean
  readonly conflationKey?: string
  readonly idempotencyKey?: string
}

export interface DisconnectBody {
  readonly userId?: string
  readonly connectionId?: string
  readonly code?: number
  readonly reason?: string
}

export interface ListQuery { readonly cursor?: string, readonly limit?: number }

export interface HistoryQuery { readonly since?: string, readonly before?: string, readonly limit?: number, readonly reverse?: boolean }

/** These types are loose: the registry checks the rest, and its errors say what is wrong. */
const name = { type: 'string', minLength: 1, maxLength: 255 } as const
const text = { type: 'string' } as const
const count = { type: 'integer', minimum: 0 } as const

function exactly (properties: Record<string, object>, required = Object.keys(properties)): object {
  return { type: 'object', additionalProperties: false, properties, required }
}

/**
 * An object with exactly one of these properties. Not a `oneOf` of closed objects: Fastify removes the properties that the first of them
 * does not know before it tries the next.
 */
function oneOf (properties: Record<string, object>): object {
  return { type: 'object', properties, oneOf: Object.keys(properties).map(name => ({ required: [name] })) }
}

const target = oneOf({ group: name, groups: { type: 'array', items: name }, userId: name, all: { type: 'boolean', enum: [true] } })
const list = {
  cursor: { ...text, pattern: '^[\\w-]+$', description: 'the cursor of the page before' },
  limit: { type: 'integer', minimum: 1, maximum: 10_000 }
}
const params = exactly({ group: name })

const message = {
  type: 'object',
  properties: {
    position: text,
    at: { type: 'integer', description: 'milliseconds since 1970' },
    from: { type: 'object', properties: { userId: text, connectionId: text } },
    data: { ...text, description: 'of a text frame' },
    base64: { ...text, description: 'of a binary frame' }
  }
}
const person = {
  type: 'object',
  properties: { userId: text, session: text, joinedAt: { type: 'integer' }, info: {}, connections: count }
}

/** Fastify checks requests with these schemas, and plugins for OpenAPI read them. */
export const schemas = {
  publish: {
    summary: 'Sends a message to groups, to a user, or to everyone',
    body: exactly({
      to: target,
      data: { description: 'a text is sent as it is, any other value as JSON, in a text frame' },
      base64: { ...text, pattern: '^[\\w+/-]*={0,2}$', description: 'instead of data: the bytes of a binary frame' },
      except: { type: 'array', items: { anyOf: [{ type: 'string', maxLength: 255 }, oneOf({ userId: name, group: name })] } },
      filter: exactly({ tags: { type: 'array', items: text } }),
      from: exactly({ userId: text, connectionId: text }, []),
      volatile: { type: 'boolean' },
      conflationKey: text,
      idempotencyKey: { ...text, description: 'a second message with this key does nothing for five minutes' }
    }, ['to']),
    response: {
      200: {
        type: 'object',
        properties: {
          scope: { type: 'string', enum: ['cluster', 'local', 'none'] },
          localRecipients: count,
          slowRecipients: count,
          instances: count,
          position: text,
          positions: { type: 'object', additionalProperties: text },
          queued: { type: 'boolean' },
          duplicate: { type: 'boolean' }
        }
      }
    }
  },
  groups: {
    summary: 'Lists the groups that have members',
    querystring: exactly({ prefix: text, ...list }, []),
    response: { 200: { type: 'object', properties: { groups: { type: 'array', items: text }, cursor: text, missing: count } } }
  },
  history: {
    summary: 'Reads what was sent to a group',
    params,
    querystring: exactly({ since: text, before: text, limit: list.limit, reverse: { type: 'boolean' } }, []),
    response: {
      200: {
        type: 'object',
        properties: { messages: { type: 'array', items: message }, position: text, gap: text, more: { type: 'boolean' } }
      }
    }
  },
  presence: {
    summary: 'Lists the people in a group',
    params,
    querystring: exactly(list, []),
    response: {
      200: {
        type: 'object',
        properties: {
          people: { type: 'array', items: person },
          cursor: text,
          ageMs: {
            type: 'number',
            nullable: true,
            description: 'milliseconds: more than 0 for a list that was last known, null for the people of one instance alone'
          }
        }
      }
    }
  },
  disconnect: {
    summary: 'Closes one connection, or all connections of a user',
    body: {
      allOf: [oneOf({ userId: name, connectionId: name }), { type: 'object', properties: { code: { type: 'integer' }, reason: text } }]
    },
    response: { 200: { type: 'object', properties: { disconnected: count } } }
  }
} satisfies Record<string, FastifySchema & { readonly summary: string }>
