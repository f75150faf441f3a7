import { Refusal, Reply, type MessageAnswer } from '../connection/framed/message-answer.ts'
import { isIn } from '../connection/is-in.ts'
import { isClientFault, willPass } from '../connection/error-answer.ts'
import { isThenable } from '../connection/inbound/callback-results.ts'
import { RateTable } from '../connection/inbound/rate.ts'
import type { StreamName } from '../backplane/backplane.ts'
import { hasCode, WebsocketGroupsError } from '../errors.ts'
import type { ConnectionCommands } from '../groups/remote.ts'
import type { Metrics } from '../metrics.ts'
import type { ConnectionCallbacks } from '../route-types.ts'
import type { Streams } from '../streams/streams.ts'
import { fieldsOf, pieceType } from '../streams/wire.ts'
import { toError } from '../thrown.ts'
import type { Connection } from '../types.ts'
import { copyCallbacks } from './callbacks.ts'
import { encodeAnswer, parseMessage, typeOf, type NamedMessage } from './wire.ts'

/** How many requests one connection may send: a page asks once for each stream, and again after a break. */
const requestRate = { perSecond: 20, burst: 200 }
const maxConnections = 10_000

const names = ['list', 'read', 'stop'].map(name => `${pieceType}.${name}`)
/**
 * Every message about streams contains one of these: its type as it is, or an escape, as JSON can write any letter. Looking for them is
 * cheap, so messages of other kinds are not parsed.
 */
const marks = [pieceType, '\\u'] as const
/** Clients that get JSON as text recognize a piece by this beginning. */
const pieceStart = `{"type":"${pieceType}"`

type MayStop = ConnectionCallbacks['mayStop']

/** Whether a message by name is a request about streams. */
export function isStreamRequest (name: string | undefined): boolean {
  return name !== undefined && names.includes(name)
}

/** Whether a message of any kind is a request about streams, or looks like a piece of one to the clients that it is passed on to. */
function isAboutStreams (data: string): boolean {
  if (!marks.some(mark => data.includes(mark))) return false
  if (data.startsWith(pieceStart)) return true
  const type = typeOf(data)
  return type === pieceType || names.some(name => name === type)
}

/** What clients ask of the streams of their groups: docs/protocol.md. */
export class StreamRequests {
  readonly #streams: Streams
  readonly #commands: Pick<ConnectionCommands, 'streams'>
  readonly #metrics: Metrics
  readonly #rates = new RateTable(requestRate, maxConnections)

  constructor (streams: Streams, commands: Pick<ConnectionCommands, 'streams'>, metrics: Metrics) {
    this.#streams = streams
    this.#commands = commands
    this.#metrics = metrics
  }

  /**
   * Wraps the callbacks of a route that takes messages of any kind: requests about streams are answered here and do not reach `onMessage`.
   * A message that looks like a piece of a stream is refused: members to whom the route passed it on would take it for the producer's.
   */
  before (callbacks: ConnectionCallbacks): ConnectionCallbacks {
    const copy = copyCallbacks(callbacks)
    return {
      ...copy,
      onMessage: (connection, data) => typeof data === 'string' && isAboutStreams(data)
        ? this.#reply(connection, parseMessage(data), copy.mayStop)
        : callbacks.onMessage(connection, data)
    }
  }

  /** Answers a request. Never rejects. */
  async answer (connection: Connection, { name, data, problem }: NamedMessage, mayStop: MayStop): Promise<MessageAnswer> {
    try {
      if (name === pieceType) throw new WebsocketGroupsError('WSG_FORBIDDEN', 'pieces of streams come from the server')
      if (!isStreamRequest(name)) throw new WebsocketGroupsError('WSG_MESSAGE_INVALID', problem)
      const { group, ...fields } = fieldsIn(data)
      if (this.#rates.take(connection.id) > 0) throw new WebsocketGroupsError('WSG_RATE_LIMITED')
      if (typeof group !== 'string' || !isIn(connection, group)) throw new WebsocketGroupsError('WSG_FORBIDDEN', 'not in the group')
      if (name === `${pieceType}.list`) return reply({ ids: await this.#streams.list(group) })
      const { id } = fields
      if (typeof id !== 'string') throw new WebsocketGroupsError('WSG_MESSAGE_INVALID', 'id must be a string')
      const stream = { group, id }
      return reply(name === `${pieceType}.stop` ? await this.#stop(connection, stream, mayStop) : await this.#read(stream, fields))
    } catch (thrown) {
      const error = toError(thrown)
      if (hasCode(error, 'WSG_RATE_LIMITED')) this.#metrics.limitHit('messagesRefused', connection)
      else if (!willPass(error) && !isClientFault(error)) {
        this.#metrics.lines.write(connection.log, 'message_handler_failed', { err: error, name })
      }
      return new Refusal(error)
    }
  }

  async #reply (connection: Connection, message: NamedMessage, mayStop: MayStop): Promise<unknown> {
    const answer = await this.answer(connection, message, mayStop)
    if (connection.framed) return answer
    const encoded = encodeAnswer(message.id, answer)
    if (encoded !== undefined) connection.send(encoded)
    return undefined
  }

  async #read (stream: StreamName, { epoch, from }: Fields): Promise<object> {
    const start = Number.isSafeInteger(from) && (from as number) >= 0 ? from as number : 0
    const part = await this.#streams.read(stream, { epoch: typeof epoch === 'string' ? epoch : undefined, from: start })
    if (part === undefined) throw new WebsocketGroupsError('WSG_STREAM_UNKNOWN')
    const { at, to, text, head: { meta }, ending } = part
    return { id: stream.id, epoch: part.epoch, at, to, text, meta, ...(ending === undefined ? {} : fieldsOf(ending)) }
  }

  async #stop (connection: Connection, stream: StreamName, mayStop: MayStop): Promise<object> {
    const head = await this.#streams.headOfOpen(stream)
    if (head === undefined) return { stopped: false }
    const { owner } = head
    const isOwner = owner !== undefined && owner === connection.userId
    const allowed = isOwner || mayStop?.(connection, { ...stream, owner })
    if ((isThenable(allowed) ? await allowed : allowed) !== true) throw new WebsocketGroupsError('WSG_FORBIDDEN', 'not the owner')
    return { stopped: await this.#commands.streams.stop(stream) }
  }
}

type Fields = Readonly<Record<string, unknown>>

function fieldsIn (data: unknown): Fields {
  if (typeof data === 'object' && data !== null) return data as Fields
  throw new WebsocketGroupsError('WSG_MESSAGE_INVALID', 'data must be an object')
}

function reply (data: object): Reply {
  return new Reply({ json: JSON.stringify(data) })
}
