import type { FastifyInstance } from 'fastify'
import { WebsocketGroupsError } from '../errors.ts'
import type { AnyMessages, MessageDefinition, MessageSchema, MessagesOptions } from '../types/messages.ts'
import { aBoolean, aFunction, anObject, check, checkOptions, invalid, show } from '../options/rules.ts'
import type { AnyConnection, BroadcastOptions, BroadcastResult, Data, Registry } from '../types.ts'
import { compilersOf } from './compilers.ts'
import { aSchema, Event, Message } from './message.ts'
import { Once } from './once.ts'
import { answerNames, encodeEvent, namePattern } from './wire.ts'

const rules = {
  messages: anObject,
  events: anObject,
  validateEvents: aBoolean,
  validatorCompiler: aFunction,
  serializerCompiler: aFunction
} as const

/** The definition of messages, without the types of their data. */
export interface RawDefinition extends MessagesOptions {
  readonly messages: Readonly<Record<string, MessageDefinition>>
}

type Sending = Pick<Registry, 'broadcastToGroup' | 'broadcastToAll' | 'sendToUser' | 'sendTo' | 'history'>

/** The messages and events of `app.wsMessages`. */
export class MessageSet implements AnyMessages {
  readonly messages: ReadonlyMap<string, Message>
  readonly events: ReadonlyMap<string, Event>
  readonly once: Once
  readonly #definition: RawDefinition
  readonly #scope: FastifyInstance
  readonly #registry: Sending

  /** `scope`: whose compilers and shared schemas count. @throws {WebsocketGroupsError} WSG_OPTION_INVALID */
  constructor (definition: RawDefinition, scope: FastifyInstance, registry: Sending) {
    checkOptions(definition, rules, 'wsMessages.')
    const { messages, events = {}, validateEvents = process.env.NODE_ENV !== 'production' } = definition
    check('wsMessages.messages', messages, anObject)
    this.messages = new Map(Object.entries(messages).map(([name, message]) => [assertName(name, 'messages'), new Message(name, message)]))
    this.events = new Map(Object.entries(events).map(([name, schema]) => [name, makeEvent(name, schema as MessageSchema, validateEvents)]))
    this.#definition = definition
    this.#scope = scope
    this.#registry = registry
    this.once = new Once(registry)
  }

  /**
   * Compiles the schemas; called when all plugins are loaded.
   * @throws {WebsocketGroupsError} WSG_OPTION_INVALID
   */
  compile (): void {
    const compilers = compilersOf(this.#scope, this.#definition)
    for (const part of [...this.messages.values(), ...this.events.values()]) {
      try {
        part.compile(compilers)
      } catch (error) {
        throw new WebsocketGroupsError('WSG_OPTION_INVALID', `wsMessages: a schema of ${part.name} cannot be compiled: ${String(error)}`, { cause: error })
      }
    }
  }

  async emit (group: string | readonly string[], name: string, data: unknown, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#registry.broadcastToGroup(group, await this.#encode(name, data), options)
  }

  async emitToUser (userId: string, name: string, data: unknown, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#registry.sendToUser(userId, await this.#encode(name, data), options)
  }

  async emitToAll (name: string, data: unknown, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#registry.broadcastToAll(await this.#encode(name, data), options)
  }

  async emitTo (connection: AnyConnection | string, name: string, data: unknown): Promise<boolean> {
    const encoded = await this.#encode(name, data)
    return typeof connection === 'string' ? await this.#registry.sendTo(connection, encoded) : connection.send(encoded)
  }

  async #encode (name: string, data: unknown): Promise<Data> {
    const event = this.events.get(name)
    if (event === undefined) {
      throw new WebsocketGroupsError('WSG_EVENT_INVALID', `no event ${show(name)}; there are: ${[...this.events.keys()].join(', ')}`)
    }
    return encodeEvent(name, await event.encode(data))
  }
}

function makeEvent (name: string, schema: MessageSchema, validate: boolean): Event {
  assertName(name, 'events')
  if (answerNames.some(taken => taken === name)) throw invalid(`wsMessages.events.${name}: answers to messages are called so`)
  check(`wsMessages.events.${name}`, schema, aSchema)
  return new Event(name, schema, validate)
}

function assertName (name: string, where: string): string {
  if (namePattern.test(name)) return name
  throw invalid(`wsMessages.${where}: a name must match ${String(namePattern)}, got ${show(name)}`)
}
