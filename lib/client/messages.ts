import type { Contract, HasContract } from '../protocol/contract.ts'
import { ClientError } from './errors.ts'
import { connect as connectPlain, type Client } from './index.ts'
import { maxTimerMs } from './limits.ts'
import type { Address, ConnectOptions, HistoryPage, HistoryQuery, Message } from './types.ts'

export type { Client, ClientError } from './index.ts'
export type { Contract, HasContract } from '../protocol/contract.ts'

/** The contract behind `typeof chat` of the server, or a contract itself. */
export type ContractIn<Source> = Source extends HasContract<infer Agreed> ? Agreed : Source extends Contract ? Source : Contract

/** Where an event came from. */
export interface EventInfo extends Pick<Message, 'group' | 'position' | 'at'> {}

/** An event of a group's history. */
export type PastEvent<Agreed extends Contract> = {
  [Of in Name<Agreed['events']>]: { readonly name: Of, readonly data: Agreed['events'][Of] } & Omit<HistoryPage['messages'][number], 'data'>
}[Name<Agreed['events']>]

/** A page of a group's history. */
export interface EventPage<Agreed extends Contract> extends Omit<HistoryPage, 'messages'> {
  readonly events: ReadonlyArray<PastEvent<Agreed>>
}

export interface RequestOptions {
  /** How long the answer may take, in milliseconds; waiting for a connection counts too. @default 10_000 */
  readonly timeoutMs?: number | undefined
  /**
   * Sends the message again when the connection broke before the answer, up to five times, with a key by which the cluster handles it once
   * and gives its answer again. The group logs of the server must be on. @default false
   */
  readonly idempotent?: boolean | undefined
}

type Name<Of> = keyof Of & string
/** The data of a message may be left out where it has none. */
type Arguments<Data, More extends readonly unknown[] = []> =
  unknown extends Data ? [data?: Data, ...more: More] : [data: Data, ...more: More]

type EventHandler<Data> = (data: Data, info: EventInfo) => void

type Answer<Reply> = Reply | Promise<Reply>
/** An event, or with an `id` a question. `group` is the one that was asked. */
interface Incoming { readonly type: string, readonly data: unknown, readonly id: unknown, readonly group?: string | undefined }

const lineFeed = 10

/**
 * Connects to a route with messages by name. `connect<typeof chat>(url)` takes their types from the server, and nothing else of it. Attach
 * handlers at once.
 * @throws {TypeError} as `connect` of `fastify-websocket-groups/client`
 */
export function connect<Source = Contract> (url: Address, options: ConnectOptions = {}): MessageClient<ContractIn<Source>> {
  return new MessageClient(connectPlain(url, { ...options, json: true }))
}

/** Messages by name over a connection that lasts until `close()`. */
export class MessageClient<Agreed extends Contract = Contract> {
  /** The connection that the messages travel by, with its state, groups, presence, history and errors. */
  readonly connection: Client
  readonly #answers = new Map<string, (data: never, info: EventInfo) => unknown>()
  /** The latest message of the connection, and what it says by name. */
  #received: Message | undefined
  #decoded: Incoming | undefined

  constructor (connection: Client) {
    this.connection = connection
    this.#hear((message, info) => { if (message.id !== undefined) void this.#answer(message, info) })
  }

  /**
   * Sends a message and resolves with the reply to it. Rejects with a `ClientError`: the code is that of the server's error, TIMEOUT when
   * no answer came in time (the message may be handled all the same), or one of those of `send`.
   */
  async request<Of extends Name<Agreed['messages']>> (
    name: Of,
    ...[data, { timeoutMs = 10_000, idempotent = false } = {}]: Arguments<Agreed['messages'][Of]['data'], [options?: RequestOptions]>
  ): Promise<Agreed['messages'][Of]['reply']> {
    // A key that no other message of this user has. Pages that are not served over TLS have no crypto.randomUUID.
    const key = idempotent ? `${Math.random()}${Math.random()}` : undefined
    const sent = this.connection.send(encode(name, data, key), { retry: idempotent })
    return new Promise((resolve, reject) => {
      const late = (): void => reject(new ClientError('TIMEOUT', `no answer to ${name} in time`))
      const timer = setTimeout(late, Math.min(timeoutMs, maxTimerMs))
      sent.then(({ data }) => resolve(data as Agreed['messages'][Of]['reply']), reject).finally(() => clearTimeout(timer))
    })
  }

  /** Sends a message that needs no answer: it may be lost with the connection, and nobody is told of its errors. */
  emit<Of extends Name<Agreed['messages']>> (name: Of, ...[data]: Arguments<Agreed['messages'][Of]['data']>): void {
    this.connection.send(encode(name, data), { ack: false })
  }

  /** Calls the handler with the data of each event of this name, of any group. Returns a function that removes the handler again. */
  on<Of extends Name<Agreed['events']>> (name: Of, handler: EventHandler<Agreed['events'][Of]>): () => void {
    return this.#hear(({ type, data, id }, info) => {
      if (type === name && id === undefined) handler(data as Agreed['events'][Of], info)
    })
  }

  /**
   * Answers a question of the server with what the handler returns, or with the `code` and `message` of the error that it throws. Only the
   * latest handler of each name counts. Returns a function that removes the handler again.
   */
  answer<Of extends Name<Agreed['questions']>> (
    name: Of, handler: (data: Agreed['questions'][Of]['data'], info: EventInfo) => Answer<Agreed['questions'][Of]['reply']>
  ): () => void {
    this.#answers.set(name, handler)
    return () => { if (this.#answers.get(name) === handler) this.#answers.delete(name) }
  }

  /** The events of one group alone; `on` works as that of this client. */
  group (group: string): Pick<MessageClient<Agreed>, 'on'> {
    return { on: (name, handler) => this.on(name, (data, info) => { if (info.group === group) handler(data, info) }) }
  }

  /** Reads what was sent to a group, as `history` of the connection does: the events alone, without messages of other kinds. */
  async history (group: string, query?: HistoryQuery): Promise<EventPage<Agreed>> {
    const { messages, ...page } = await this.connection.history(group, query)
    const events = messages.flatMap(({ data, ...info }) => {
      const event = decode(data)
      return event ? { name: event.type, data: event.data, ...info } : []
    })
    return { ...page, events: events as unknown as EventPage<Agreed>['events'] }
  }

  /** Closes the connection for good. */
  close (code?: number, reason?: string): void {
    this.connection.close(code, reason)
  }

  /** Calls the listener with each message by name. */
  #hear (listener: (message: Incoming, info: EventInfo) => void): () => void {
    return this.connection.on('message', received => {
      // All listeners are given the same object, which only the first of them decodes.
      if (received !== this.#received) [this.#received, this.#decoded] = [received, decode(received.data)]
      const { data: _, ...info } = received
      if (this.#decoded) listener(this.#decoded, info)
    })
  }

  async #answer ({ type, data, id, group }: Incoming, info: EventInfo): Promise<void> {
    const answer = (fields: object): void => { this.connection.send({ json: { id, ...fields } }, { ack: false }) }
    try {
      const handler = this.#answers.get(type)
      if (!handler) throw new ClientError('UNANSWERED', `nobody answers ${type}`)
      answer({ type: 'reply', data: await handler(data as never, { ...info, group }) })
    } catch (error) {
      // Anything may be thrown, even `undefined`.
      const { code = 'HANDLER_FAILED', message = '' } = (error ?? {}) as Partial<ClientError>
      answer({ type: 'error', code, message })
    }
  }
}

/** As docs/protocol.md says: JSON, or a line of JSON and bytes behind it. */
function encode (name: string, data: unknown, key?: string): Uint8Array | { readonly json: unknown } {
  const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : data
  if (!(bytes instanceof Uint8Array)) return { json: { type: name, data, key } }
  const header = new TextEncoder().encode(`${JSON.stringify({ type: name, key })}\n`)
  const message = new Uint8Array(header.length + bytes.length)
  message.set(header)
  message.set(bytes, header.length)
  return message
}

/** `undefined` for messages of other kinds: they are for handlers of the connection. */
function decode (data: unknown): Incoming | undefined {
  if (!(data instanceof Uint8Array)) return eventOf(data)
  const end = data.indexOf(lineFeed)
  try {
    const event = eventOf(JSON.parse(new TextDecoder().decode(data.subarray(0, end))))
    return event && { ...event, data: data.subarray(end + 1) }
  } catch {
    return undefined // other bytes
  }
}

function eventOf (value: unknown): Incoming | undefined {
  const event = value as Incoming | null | undefined
  return typeof event?.type === 'string' ? event : undefined
}
