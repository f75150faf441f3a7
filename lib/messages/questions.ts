import { isIn } from '../connection/is-in.ts'
import type { ClientReplies, ClientReply, Connection, InstanceEvents, Registry } from '../types.ts'

/** A question on its way to all instances. */
interface Question {
  readonly target: QuestionTarget
  readonly name: string
  /** The data as JSON. */
  readonly json: string
  readonly timeoutMs: number
}

export type QuestionTarget = { readonly group: string } | { readonly userId: string } | { readonly connectionId: string }

/** The replies of the clients of one instance, and who did not reply. */
type Collected = Pick<ClientReplies, 'replies' | 'missing'>

/** What a client answers to a question. */
export type ClientAnswer = Pick<ClientReply, 'data' | 'error'>

interface Waiting {
  readonly connection: Connection
  settle (answer: ClientAnswer | undefined): void
}

const eventName = 'wsg.ask' as keyof InstanceEvents & string
/** The replies of one instance travel in one message: replies beyond this many bytes in all count as missing. */
const maxReplyBytes = 524_288

/** How much longer than its clients an instance may take to answer (milliseconds). */
const graceMs = 1_000

type Host = Pick<Registry, 'filter' | 'get' | 'instances'>

/** Asks clients of all instances. Each instance asks its own clients and returns the replies that came in time. */
export class Questions {
  readonly #registry: Host
  /** Questions without a reply yet. Each client is asked under an id of its own. */
  readonly #waiting = new Map<string, Waiting>()
  #lastId = 0

  constructor (registry: Host) {
    this.#registry = registry
    registry.instances.on(eventName, async payload => await this.#askHere(payload as unknown as Question))
  }

  /** Resolves soon after `timeoutMs` at the latest. While the backplane is out, only clients of this instance are asked. */
  async ask (question: Question): Promise<ClientReplies> {
    const timeoutMs = question.timeoutMs + graceMs
    const { replies, missing, scope } = await this.#registry.instances.ask(eventName, question as never, { timeoutMs })
    const instancesMissing = scope === 'local' ? 0 : missing
    return { ...joined(replies as Collected[]), instancesMissing, scope: scope ?? 'cluster' }
  }

  /** Takes an answer of a client. Ignores an answer that comes too late, or has the id of another client's question. */
  answered (connection: Connection, id: unknown, answer: ClientAnswer): void {
    const waiting = this.#waiting.get(String(id))
    if (waiting?.connection === connection) waiting.settle(answer)
  }

  async #askHere ({ target, name, json, timeoutMs }: Question): Promise<Collected> {
    let bytes = 0
    // A client may be in several groups, and a question comes to it alone.
    const fields = `"data":${json}${'group' in target ? `,"group":${JSON.stringify(target.group)}` : ''}`
    const [replies, missing]: [Array<ClientReply>, string[]] = [[], []]
    await Promise.all(this.#targets(target).map(async connection => {
      const answer = await this.#askOne(connection, name, fields, timeoutMs)
      const more = answer === undefined ? 0 : Buffer.byteLength(JSON.stringify(answer))
      const { id: connectionId, userId } = connection
      if (answer === undefined || bytes + more > maxReplyBytes) {
        missing.push(connectionId)
        return
      }
      bytes += more
      replies.push({ connectionId, ...(userId === undefined ? {} : { userId }), ...answer })
    }))
    return { replies, missing }
  }

  #targets (target: QuestionTarget): Connection[] {
    if ('connectionId' in target) return [this.#registry.get(target.connectionId) ?? []].flat()
    if ('userId' in target) return this.#registry.filter(({ userId }) => userId === target.userId)
    return this.#registry.filter(connection => isIn(connection, target.group))
  }

  /** `fields`: the question without its name and id, as JSON. */
  async #askOne (connection: Connection, name: string, fields: string, timeoutMs: number): Promise<ClientAnswer | undefined> {
    const id = `q${++this.#lastId}`
    return await new Promise(resolve => {
      const settle: Waiting['settle'] = answer => {
        clearTimeout(timer)
        connection.signal.removeEventListener('abort', gone)
        this.#waiting.delete(id)
        resolve(answer)
      }
      const gone = (): void => settle(undefined)
      const timer = setTimeout(gone, timeoutMs)
      this.#waiting.set(id, { connection, settle })
      connection.signal.addEventListener('abort', gone)
      if (!connection.send(`{"type":"${name}","id":"${id}",${fields}}`)) gone()
    })
  }
}

function joined (all: readonly Collected[]): Collected {
  return { replies: all.flatMap(({ replies }) => replies), missing: all.flatMap(({ missing }) => missing) }
}
