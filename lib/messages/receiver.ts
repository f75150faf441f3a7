import type { FastifyRequest } from 'fastify'
import type { JsonMessage } from '../connection/inbound/json-message.ts'
import { isClientFault, willPass } from '../connection/error-answer.ts'
import { Refusal, type MessageAnswer } from '../connection/framed/message-answer.ts'
import { hasCode, WebsocketGroupsError } from '../errors.ts'
import type { Metrics } from '../metrics.ts'
import { show } from '../options/rules.ts'
import { toError } from '../thrown.ts'
import type { ConnectionCallbacks } from '../route-types.ts'
import type { Connection } from '../types.ts'
import { Context, type ContextRoute } from './context.ts'
import type { MessageSet } from './message-set.ts'
import { isStreamRequest, type StreamRequests } from './stream-requests.ts'
import { encodeAnswer, isClientAnswer, parseMessage, type NamedMessage } from './wire.ts'

/** What a receiver needs of the route. */
export interface MessageRoute extends Pick<ContextRoute, 'groupOf'> {
  /** Whether the connection may send messages here. Left out: it always may. */
  readonly isMember?: ((connection: Connection) => boolean) | undefined
  /** Who may stop streams, beside their owners. */
  readonly mayStop?: ConnectionCallbacks['mayStop'] | undefined
}

/** Handles the messages of one route. A failed message is answered with an error; its connection goes on. */
export class MessageReceiver {
  readonly #set: MessageSet
  readonly #streams: StreamRequests
  readonly #route: MessageRoute & ContextRoute
  readonly #metrics: Metrics
  readonly #requests = new WeakMap<Connection, FastifyRequest>()

  constructor (set: MessageSet, streams: StreamRequests, { groupOf, isMember, mayStop }: MessageRoute, metrics: Metrics) {
    this.#set = set
    this.#streams = streams
    this.#route = { groupOf, isMember, mayStop, set }
    this.#metrics = metrics
  }

  /** Keeps the upgrade request, which handlers get, as long as the connection is referenced. */
  opened (connection: Connection, request: FastifyRequest): void {
    this.#requests.set(connection, request)
  }

  /** Resolves with the answer for a framed client; other clients have been sent theirs by then. Never rejects. */
  async onMessage (connection: Connection, data: string | Buffer | JsonMessage): Promise<MessageAnswer | undefined> {
    const message = parseMessage(data)
    if (isClientAnswer(message)) {
      this.#set.questions.answered(connection, message.id, message.answer)
      return undefined
    }
    const answer = await this.#answer(connection, message)
    if (connection.framed) return answer
    const encoded = encodeAnswer(message.id, answer)
    if (encoded !== undefined) connection.send(encoded)
    return undefined
  }

  async #answer (connection: Connection, message: NamedMessage): Promise<MessageAnswer> {
    try {
      const { name, problem } = message
      if (this.#route.isMember?.(connection) === false) throw new WebsocketGroupsError('WSG_FORBIDDEN', 'not in the group')
      if (name === undefined) throw new WebsocketGroupsError('WSG_MESSAGE_INVALID', problem)
      if (isStreamRequest(name)) return await this.#streams.answer(connection, message, this.#route.mayStop)
      const known = this.#set.messages.get(name)
      if (known === undefined) throw new WebsocketGroupsError('WSG_MESSAGE_UNKNOWN', show(name))
      known.assertWithinLimits(connection, message)
      if (this.#set.auth && connection.identity === null) throw new WebsocketGroupsError('WSG_FORBIDDEN', 'the client has no identity')
      const request = this.#requests.get(connection)
      if (request === undefined) throw new WebsocketGroupsError('WSG_CONNECTION_GONE')
      const handle = async (): Promise<MessageAnswer> => await known.run(new Context(name, connection, request, this.#route), message)
      if (message.key === undefined) return await handle()
      return await this.#set.once.run(ownerOf(connection), message.key, async () => {
        try {
          return await handle()
        } catch (error) {
          return this.#refusal(connection, message, error)
        }
      })
    } catch (error) {
      return this.#refusal(connection, message, error)
    }
  }

  #refusal (connection: Connection, { name }: NamedMessage, thrown: unknown): Refusal {
    const error = toError(thrown)
    this.#metrics.messagesFailed++
    if (hasCode(error, 'WSG_MESSAGE_LIMIT', 'WSG_RATE_LIMITED')) this.#metrics.limitHit('messagesRefused', connection)
    if (willPass(error) || isClientFault(error)) connection.log.debug({ err: error, name }, 'a message was refused')
    else this.#metrics.lines.write(connection.log, 'message_handler_failed', { err: error, name })
    return new Refusal(error)
  }
}

/** Who may repeat a key on another connection: the user, else the session of a framed client, else nobody. */
function ownerOf (connection: Connection): string {
  const { userId, sessionName } = connection as Connection & { readonly sessionName?: string | undefined }
  return JSON.stringify([userId, userId === undefined ? sessionName ?? connection.id : undefined])
}
