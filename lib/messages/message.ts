import { RateLimit, unpaid } from '../connection/inbound/rate.ts'
import { Reply } from '../connection/framed/message-answer.ts'
import { WebsocketGroupsError } from '../errors.ts'
import type { MessageDefinition, MessageHook, MessageSchema } from '../types/messages.ts'
import { aFunction, anObject, check, checkOptions, integer, type Rule } from '../options/rules.ts'
import type { Connection } from '../types.ts'
import type { Compilers } from './compilers.ts'
import type { Context } from './context.ts'
import { compileCheck, compileSerializer, isStandard, type Check, type Serialize } from './schemas.ts'
import type { NamedMessage } from './wire.ts'

const maxMessageBytes = 2_147_483_647

export const aSchema: Rule = {
  allowed: "a schema or 'binary'", accepts: value => value === 'binary' || anObject.accepts(value) || aFunction.accepts(value)
}
const rules = {
  data: aSchema,
  reply: aSchema,
  description: { allowed: 'a string', accepts: value => typeof value === 'string' },
  maxBytes: integer(1, maxMessageBytes, 'bytes'),
  limit: {
    allowed: 'an object { perSecond, burst? } of positive numbers',
    accepts: value => anObject.accepts(value) && isRate(value as Readonly<Record<string, unknown>>)
  },
  authorize: aFunction,
  preHandler: { allowed: 'a function or an array of functions', accepts: value => [value].flat().every(one => typeof one === 'function') },
  handler: aFunction
} as const satisfies Record<keyof MessageDefinition, Rule>

/** One message that clients may send. */
export class Message {
  readonly name: string
  readonly definition: MessageDefinition
  readonly #rate: RateLimit | undefined
  /** By connection, the instant until which its messages are paid for: see `RateLimit`. */
  readonly #paidUntil = new WeakMap<Connection, number>()
  readonly #hooks: readonly MessageHook[]
  #check: Check = data => data
  #serialize: Serialize | undefined

  /** @throws {WebsocketGroupsError} WSG_OPTION_INVALID */
  constructor (name: string, definition: MessageDefinition) {
    checkOptions(definition, rules, `wsMessages.messages.${name}.`)
    check(`wsMessages.messages.${name}.handler`, definition.handler, aFunction)
    this.name = name
    this.definition = definition
    this.#rate = definition.limit === undefined ? undefined : new RateLimit(definition.limit)
    this.#hooks = [definition.preHandler ?? []].flat() as readonly MessageHook[]
  }

  compile (compilers: Compilers): void {
    const { data, reply } = this.definition
    const { name } = this
    this.#check = compileCheck(data, { code: 'WSG_MESSAGE_INVALID', name }, compilers)
    if (reply !== undefined && reply !== 'binary') {
      this.#serialize = compileSerializer(reply, { code: 'WSG_HANDLER_FAILED', name: `the reply to ${name}` }, compilers)
    }
  }

  /** @throws {WebsocketGroupsError} WSG_MESSAGE_LIMIT, WSG_RATE_LIMITED */
  assertWithinLimits (connection: Connection, { bytes }: NamedMessage): void {
    const { maxBytes = Infinity } = this.definition
    if (bytes > maxBytes) throw new WebsocketGroupsError('WSG_MESSAGE_LIMIT', `${bytes} bytes; ${this.name} may have ${maxBytes}`)
    if (this.#rate === undefined) return
    const now = performance.now()
    const paidUntil = this.#rate.charge(this.#paidUntil.get(connection) ?? unpaid, now)
    if (this.#rate.excess(paidUntil, now) > 0) throw new WebsocketGroupsError('WSG_RATE_LIMITED')
    this.#paidUntil.set(connection, paidUntil)
  }

  /** Checks the sender and the data, runs the handler, and makes the reply. */
  async run (context: Context, { data, binary }: NamedMessage): Promise<Reply> {
    const { authorize, handler } = this.definition
    if (authorize !== undefined && await authorize(context.connection.identity, context as never) !== true) {
      throw new WebsocketGroupsError('WSG_FORBIDDEN')
    }
    if (binary !== (this.definition.data === 'binary')) {
      throw new WebsocketGroupsError('WSG_MESSAGE_INVALID', `${this.name} ${binary ? 'takes JSON, not bytes' : 'takes bytes, not JSON'}`)
    }
    const checked = this.#check(data)
    context.data = checked instanceof Promise ? await checked : checked
    for (const hook of this.#hooks) await hook(context)
    const result = await handler(context as never)
    return new Reply(await this.#encode(result))
  }

  async #encode (result: unknown): Promise<Reply['data']> {
    if (this.definition.reply === 'binary') return { bytes: toBytes(result) }
    if (this.#serialize === undefined) return undefined
    return { json: await this.#serialize(result) }
  }
}

function toBytes (result: unknown): Uint8Array {
  if (result instanceof Uint8Array) return result
  throw new TypeError(`a handler whose reply is 'binary' returned ${typeof result}, not bytes`)
}

function isRate ({ perSecond, burst = perSecond }: Readonly<Record<string, unknown>>): boolean {
  return [perSecond, burst].every(value => typeof value === 'number' && value > 0 && value < Infinity)
}

/** One event that the server may send. */
export class Event {
  readonly name: string
  readonly schema: MessageSchema
  readonly #validate: boolean
  #check: Check = data => data
  #serialize: Serialize = () => ''

  constructor (name: string, schema: MessageSchema, validate: boolean) {
    this.name = name
    this.schema = schema
    this.#validate = validate
  }

  compile (compilers: Compilers): void {
    const subject = { code: 'WSG_EVENT_INVALID', name: this.name } as const
    this.#check = compileCheck(this.schema, subject, compilers)
    if (this.schema !== 'binary') this.#serialize = compileSerializer(this.schema, subject, compilers)
  }

  /** @throws {WebsocketGroupsError} WSG_EVENT_INVALID if the data does not match the schema */
  async encode (data: unknown): Promise<NonNullable<Reply['data']>> {
    if (this.schema === 'binary') return { bytes: this.#check(data) as Uint8Array }
    const json = await this.#serialize(data)
    // Check what was serialized, not the data given: a check may change its argument, which belongs to the caller. A Standard Schema has
    // checked the data already.
    if (this.#validate && !isStandard(this.schema)) await this.#check(JSON.parse(json))
    return { json }
  }
}
