import type {
  FastifyRequest, FastifySchemaCompiler, FastifySerializerCompiler, FastifyTypeProvider, FastifyTypeProviderDefault
} from 'fastify'
import type { AnyConnection, Connection, Identity } from './connection.ts'
import type { HasContract } from '../protocol/contract.ts'
import type { Scope } from '../protocol/logs.ts'
import type { BroadcastOptions, BroadcastResult, UserTarget } from './broadcast.ts'
import type { AskOptions } from './registry.ts'

/** What all validators of the Standard Schema specification have in common: Zod, Valibot, ArkType and others. */
export interface StandardSchema<Input = unknown, Output = Input> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => StandardResult<Output> | Promise<StandardResult<Output>>
    readonly types?: { readonly input: Input, readonly output: Output } | undefined
  }
}

export type StandardResult<Output> =
  | { readonly value: Output, readonly issues?: undefined }
  | { readonly issues: readonly unknown[] }

/**
 * The form of some data: JSON Schema, or anything else that the compilers of the scope accept (TypeBox, Zod, …); a Standard Schema; or
 * `'binary'` for bytes.
 */
export type MessageSchema = object | 'binary'

/** What a Standard Schema says of its data, on one of its sides. */
interface Standard<Side extends 'input' | 'output', Data> {
  readonly '~standard': { readonly types?: { readonly [Name in Side]: Data } | undefined }
}

/** The data that a schema lets through: what a handler gets, and what a client gets of an event. */
export type Parsed<Provider extends FastifyTypeProvider, Schema> =
  Schema extends 'binary' ? Buffer
    : Schema extends Standard<'output', infer Output> ? Output
      : (Provider & { schema: Schema })['validator']

/** The data that a schema takes: what a handler replies, an event is made of, and a client sends. */
export type Parsable<Provider extends FastifyTypeProvider, Schema> =
  unknown extends Schema ? unknown
    : Schema extends 'binary' ? Uint8Array
      : Schema extends Standard<'input', infer Input> ? Input
        : (Provider & { schema: Schema })['serializer']

/** The data of each event, by its name. */
export type EventData<Provider extends FastifyTypeProvider, Events> = { readonly [Name in keyof Events]: Parsable<Provider, Events[Name]> }

/** What a handler is called with. */
export interface MessageContext<Data = unknown, Events = Readonly<Record<string, unknown>>, Who = Identity | null> {
  /** The name of the message. */
  readonly name: string
  /** What the schema lets through. */
  readonly data: Data
  readonly connection: Connection<Record<string, string>, Who>
  /** The user of the connection, see `connection.userId`. */
  readonly userId: string | undefined
  /**
   * The group of the room; of a route of `wsHandler`, the only group that the connection is in.
   * @throws {WebsocketGroupsError} WSG_FORBIDDEN when the connection is in no group, or in several
   */
  readonly group: string
  /** The upgrade request. */
  readonly request: FastifyRequest
  /** Sends an event to `group`, from this connection. */
  emit <Name extends keyof Events & string> (name: Name, data: Events[Name], options?: BroadcastOptions): Promise<BroadcastResult>
  /** Sends an event to all connections of a user, on every instance, from this connection. */
  emitToUser <Name extends keyof Events & string> (
    userId: string, name: Name, data: Events[Name], options?: BroadcastOptions
  ): Promise<BroadcastResult>
}

type Awaitable<Value> = Value | Promise<Value>

/** How many messages per second, after how many at once, one connection may send. */
export interface MessageRate {
  /** May be less than one: 0.1 for one message in ten seconds. */
  readonly perSecond: number
  /** @default perSecond, and at least 1 */
  readonly burst?: number | undefined
}

/** Settings of a message, beside its schemas and its handler. */
export interface MessageSettings<Data = unknown, Events = Readonly<Record<string, unknown>>, Who = Identity | null> {
  /** Shown in the document of `app.asyncapi`. */
  readonly description?: string | undefined
  /** The most bytes that the message may have, with its name and `id`. @default maxPayload of the server */
  readonly maxBytes?: number | undefined
  /** How often one connection may send the message, else WSG_RATE_LIMITED is the answer. @default no limit but those of the connection */
  readonly limit?: MessageRate | undefined
  /** Anything but `true` is answered with WSG_FORBIDDEN. Runs before the data is checked. */
  readonly authorize?: ((identity: Who, context: MessageContext<unknown, Events, Who>) => Awaitable<boolean>) | undefined
  /** Run in order after the data is checked, before the handler. An error that one of them throws is the answer. */
  readonly preHandler?: MessageHook<Data, Events, Who> | ReadonlyArray<MessageHook<Data, Events, Who>> | undefined
}

export type MessageHook<Data = unknown, Events = Readonly<Record<string, unknown>>, Who = Identity | null> =
  (context: MessageContext<Data, Events, Who>) => Awaitable<unknown>

/** One message that clients may send: the schemas of its data and its reply, and its handler. */
export interface MessageDefinition extends MessageSettings {
  /** Left out: any JSON, unchecked. */
  readonly data?: MessageSchema | undefined
  /** Left out: the reply has no data, whatever the handler returns. */
  readonly reply?: MessageSchema | undefined
  readonly handler: (context: never) => unknown
}

/** The schemas of a question's data and of the clients' replies. */
export interface QuestionSchemas {
  readonly data?: unknown
  readonly reply?: unknown
}

/** Who is asked: a group, all connections of a user, or one connection. */
export type AskTarget = string | UserTarget | AnyConnection

/** What one client answered. */
export interface ClientReply<Data = unknown> {
  readonly connectionId: string
  readonly userId?: string | undefined
  readonly data?: Data | undefined
  /** The client could not answer, or its answer does not fit the schema. */
  readonly error?: { readonly code: string, readonly message: string } | undefined
}

/** What came back from clients in time. */
export interface ClientReplies<Data = unknown> {
  readonly replies: ReadonlyArray<ClientReply<Data>>
  /** The ids of the connections that were asked and did not answer in time. */
  readonly missing: readonly string[]
  /** How many instances did not answer, so that the replies of their clients are missing. */
  readonly instancesMissing: number
  /** `local`: the backplane was out, and clients of this instance alone were asked. */
  readonly scope: Scope
}

/** What `app.wsMessages` takes beside `messages`. */
export interface MessagesOptions<Events = Readonly<Record<string, unknown>>, Questions = Readonly<Record<string, QuestionSchemas>>> {
  /**
   * `true`: only clients with an identity may send these messages, others are answered with WSG_FORBIDDEN; so `connection.identity` is
   * never `null` in handlers. @default false
   */
  readonly auth?: boolean | undefined
  /** The schemas of what the server sends, by name. */
  readonly events?: Events | undefined
  /** The schemas of what the server asks clients, by name. */
  readonly questions?: Questions | undefined
  /** Checks the data of each event before it is sent. @default true unless NODE_ENV is production */
  readonly validateEvents?: boolean | undefined
  /** Compiles the schemas of data. @default the validator compiler of the scope */
  readonly validatorCompiler?: FastifySchemaCompiler<never> | undefined
  /** Compiles the schemas of replies and events. @default the serializer compiler of the scope */
  readonly serializerCompiler?: FastifySerializerCompiler<never> | undefined
}

/** The identity of whoever sends a message, by the option `auth`. */
type SentBy<Auth extends boolean> = [Auth] extends [true] ? Identity : Identity | null

/** The options of `app.wsMessages`, with the types of all data inferred from the schemas. */
export interface MessagesDefinition<
  Data extends Record<string, unknown>, Replies extends Record<string, unknown>, Events extends Record<string, unknown>,
  Provider extends FastifyTypeProvider, Questions extends Record<string, QuestionSchemas> = {}, Auth extends boolean = boolean
> extends MessagesOptions<Events, Questions> {
  readonly auth?: Auth | undefined
  /** What clients send, by name. */
  readonly messages: {
    readonly [Name in keyof Data]: MessageSettings<Parsed<Provider, Data[Name]>, EventData<Provider, Events>, SentBy<Auth>> & {
      readonly data?: Data[Name] | undefined
      readonly handler: (context: MessageContext<Parsed<Provider, Data[Name]>, EventData<Provider, Events>, SentBy<Auth>>) =>
      Name extends keyof Replies ? Awaitable<Parsable<Provider, Replies[Name]>> : unknown
    }
    // `handler` is named here, too: where no message has `data`, TypeScript infers no names above, and would know no such property.
  } & { readonly [Name in keyof Replies]: { readonly reply?: Replies[Name] | undefined, readonly handler?: unknown } }
}

/** The contract of these messages and events, as clients see it. */
export interface ContractOf<
  Data, Replies, Events, Provider extends FastifyTypeProvider, Questions = {}
> {
  readonly messages: {
    readonly [Name in keyof Data]: {
      readonly data: Parsable<Provider, Data[Name]>
      readonly reply: Name extends keyof Replies ? unknown extends Replies[Name] ? undefined : Parsed<Provider, Replies[Name]> : undefined
    }
  }
  readonly events: { readonly [Name in keyof Events]: Parsed<Provider, Events[Name]> }
  readonly questions: {
    readonly [Name in keyof Questions]: {
      readonly data: Questions[Name] extends { readonly data: infer Schema } ? Parsed<Provider, Schema> : undefined
      readonly reply: Questions[Name] extends { readonly reply: infer Schema } ? Parsable<Provider, Schema> : unknown
    }
  }
}

/** Messages and events that a route has: made by `app.wsMessages`, for the option `messages` of `wsRoom` and `wsHandler`. */
export interface Messages<
  Data = never, Replies = never, Events = Readonly<Record<string, unknown>>,
  Provider extends FastifyTypeProvider = FastifyTypeProviderDefault, Questions = {}
> extends HasContract<ContractOf<Data, Replies, Events, Provider, Questions>> {
  /**
   * Asks clients, wherever they are, and resolves with what they answer within `timeoutMs` (5,000), a second after that at the latest.
   * Never rejects because of a client or an instance. A handler must not wait for its own client, whose answer comes after the handler.
   * @throws {WebsocketGroupsError} WSG_EVENT_INVALID for data that does not fit the schema
   */
  ask <Name extends keyof Questions & string> (
    target: AskTarget, name: Name, data: Questions[Name] extends { readonly data: infer Schema } ? Parsable<Provider, Schema> : undefined,
    options?: AskOptions
  ): Promise<ClientReplies<Questions[Name] extends { readonly reply: infer Schema } ? Parsed<Provider, Schema> : unknown>>
  /**
   * Sends an event to every member of the group, or groups, as `registry.broadcastToGroup` does.
   * @throws {WebsocketGroupsError} WSG_EVENT_INVALID, and as `broadcastToGroup`
   */
  emit <Name extends keyof Events & string> (
    group: string | readonly string[], name: Name, data: Parsable<Provider, Events[Name]>, options?: BroadcastOptions
  ): Promise<BroadcastResult>
  /** Sends an event to all connections of a user, on every instance. */
  emitToUser <Name extends keyof Events & string> (
    userId: string, name: Name, data: Parsable<Provider, Events[Name]>, options?: BroadcastOptions
  ): Promise<BroadcastResult>
  /** Sends an event to every connection of every instance. */
  emitToAll <Name extends keyof Events & string> (
    name: Name, data: Parsable<Provider, Events[Name]>, options?: BroadcastOptions
  ): Promise<BroadcastResult>
  /** Sends an event to one connection, wherever it is. Resolves as `registry.sendTo`. */
  emitTo <Name extends keyof Events & string> (
    connection: AnyConnection | string, name: Name, data: Parsable<Provider, Events[Name]>
  ): Promise<boolean>
}

/** A server as AsyncAPI describes it. */
export interface AsyncApiServer {
  readonly host: string
  /** `ws` or `wss`. */
  readonly protocol: string
  readonly [field: string]: unknown
}

/** What `app.asyncapi` says about the application beside its routes. */
export interface AsyncApiOptions {
  /** @default { title: 'WebSocket API', version: '1.0.0' } */
  readonly info?: { readonly title: string, readonly version: string, readonly description?: string | undefined } | undefined
  /** Where the application runs, by name: `{ production: { host: 'example.com', protocol: 'wss' } }`. */
  readonly servers?: Readonly<Record<string, AsyncApiServer>> | undefined
  readonly id?: string | undefined
}

type Parts = Readonly<Record<string, Readonly<Record<string, unknown>>>>

/** An AsyncAPI 3.0 document. */
export interface AsyncApiDocument {
  readonly asyncapi: '3.0.0'
  readonly id?: string | undefined
  readonly info: NonNullable<AsyncApiOptions['info']>
  readonly defaultContentType: string
  readonly servers?: AsyncApiOptions['servers']
  readonly channels: Parts
  readonly operations: Parts
  readonly components: { readonly messages: Parts, readonly schemas: Parts, readonly securitySchemes: Parts }
}

/** The result of any `app.wsMessages`, whatever its messages and events are. */
export interface AnyMessages extends HasContract {
  emit (group: string | readonly string[], name: never, data: never, options?: BroadcastOptions): Promise<BroadcastResult>
}
