import type { FastifyInstance } from 'fastify'
import { WebsocketGroupsError } from '../errors.ts'
import { assertGroupName, assertUserId } from '../group-name.ts'
import type { AnyMessages, MessageDefinition, MessageSchema, MessagesOptions } from '../types/messages.ts'
import { aBoolean, aFunction, anObject, check, checkOptions, integer, invalid, show, type Rule } from '../options/rules.ts'
import type {
  AnyConnection, AskOptions, AskTarget, BroadcastOptions, BroadcastResult, ClientReplies, Data, QuestionSchemas, Registry
} from '../types.ts'
import { compilersOf } from './compilers.ts'
import { aSchema, Event, Message } from './message.ts'
import { Once } from './once.ts'
import { QuestionKind } from './question-kind.ts'
import type { Questions, QuestionTarget } from './questions.ts'
import { answerNames, encodeEvent, namePattern, reservedPrefix } from './wire.ts'

const rules = {
  auth: aBoolean,
  messages: anObject,
  events: anObject,
  questions: anObject,
  validateEvents: aBoolean,
  validatorCompiler: aFunction,
  serializerCompiler: aFunction
} as const

const aJsonSchema: Rule = { allowed: 'a schema', accepts: value => value !== 'binary' && aSchema.accepts(value) }
const questionRules = { data: aJsonSchema, reply: aJsonSchema } as const satisfies Record<keyof QuestionSchemas, Rule>
const defaultAskMs = 5_000
const askRules = { timeoutMs: integer(1, 600_000, 'ms') } as const satisfies Record<keyof AskOptions, Rule>

/** The argument of `app.wsMessages`, without the types of the data. */
export interface RawDefinition extends MessagesOptions {
  readonly messages: Readonly<Record<string, MessageDefinition>>
}

type Sending = Pick<Registry, 'broadcastToGroup' | 'broadcastToAll' | 'sendToUser' | 'sendTo' | 'history'>

/** The messages and events of `app.wsMessages`. */
export class MessageSet implements AnyMessages {
  /** Whether only clients with an identity may send. */
  readonly auth: boolean
  readonly messages: ReadonlyMap<string, Message>
  readonly events: ReadonlyMap<string, Event>
  readonly once: Once
  readonly questions: Questions
  /** The questions that the server may ask. */
  readonly asked: ReadonlyMap<string, QuestionKind>
  /** The scope whose compilers and shared schemas are used. */
  readonly scope: FastifyInstance
  readonly #definition: RawDefinition
  readonly #registry: Sending

  /** @throws {WebsocketGroupsError} WSG_OPTION_INVALID */
  constructor (definition: RawDefinition, scope: FastifyInstance, registry: Sending, questions: Questions) {
    checkOptions(definition, rules, 'wsMessages.')
    const { messages, events = {}, questions: asked = {}, validateEvents = process.env.NODE_ENV !== 'production' } = definition
    check('wsMessages.messages', messages, anObject)
    this.auth = definition.auth ?? false
    this.messages = new Map(Object.entries(messages).map(([name, message]) => [assertName(name, 'messages'), new Message(name, message)]))
    this.events = new Map(Object.entries(events).map(([name, schema]) => [name, makeEvent(name, schema as MessageSchema, validateEvents)]))
    this.asked = new Map(Object.entries(asked).map(([name, schemas]) => [name, makeQuestion(name, schemas, validateEvents)]))
    this.questions = questions
    this.#definition = definition
    this.scope = scope
    this.#registry = registry
    this.once = new Once(registry, scope.log)
  }

  /**
   * Compiles the schemas; called when all plugins are loaded.
   * @throws {WebsocketGroupsError} WSG_OPTION_INVALID
   */
  compile (): void {
    const compilers = compilersOf(this.scope, this.#definition)
    for (const part of [...this.messages.values(), ...this.events.values(), ...this.asked.values()]) {
      try {
        part.compile(compilers)
      } catch (error) {
        throw new WebsocketGroupsError(
          'WSG_OPTION_INVALID', `wsMessages: a schema of ${part.name} cannot be compiled: ${String(error)}`, { cause: error }
        )
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

  async ask (target: AskTarget, name: string, data: unknown, options: AskOptions = {}): Promise<ClientReplies> {
    const kind = this.asked.get(name)
    if (kind === undefined) throw new WebsocketGroupsError('WSG_EVENT_INVALID', `no question ${show(name)}`)
    checkOptions(options, askRules, 'ask: ')
    const { timeoutMs = defaultAskMs } = options
    const asked = targetOf(target)
    const answers = await this.questions.ask({ target: asked, name, json: await kind.encode(data), timeoutMs })
    return { ...answers, replies: await Promise.all(answers.replies.map(async reply => await kind.checked(reply))) }
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
  check(`wsMessages.events.${name}`, schema, aSchema)
  return new Event(name, schema, validate)
}

function makeQuestion (name: string, schemas: QuestionSchemas, validate: boolean): QuestionKind {
  assertName(name, 'questions')
  checkOptions(schemas, questionRules, `wsMessages.questions.${name}.`)
  return new QuestionKind(name, schemas, validate)
}

/** @throws {WebsocketGroupsError} WSG_GROUP_NAME_INVALID, WSG_USER_ID_INVALID, WSG_CONNECTION_GONE */
function targetOf (target: AskTarget): QuestionTarget {
  if (typeof target === 'string') {
    assertGroupName(target)
    return { group: target }
  }
  const { id, userId } = (target ?? {}) as { readonly id?: unknown, readonly userId?: unknown }
  if (typeof id === 'string') return { connectionId: id }
  if (userId === undefined) throw new WebsocketGroupsError('WSG_CONNECTION_GONE', `ask: no group, user or connection: ${show(target)}`)
  assertUserId(userId)
  return { userId }
}

function assertName (name: string, where: string): string {
  if (answerNames.some(taken => taken === name)) throw invalid(`wsMessages.${where}.${name}: this name is reserved for answers`)
  if (name.startsWith(reservedPrefix)) {
    throw invalid(`wsMessages.${where}.${name}: names that begin with ${reservedPrefix} are the protocol's own`)
  }
  if (namePattern.test(name)) return name
  throw invalid(`wsMessages.${where}: a name must match ${String(namePattern)}, got ${show(name)}`)
}
