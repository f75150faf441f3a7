import { describeError } from '../connection/error-answer.ts'
import type { ClientReply, MessageSchema, QuestionSchemas } from '../types.ts'
import type { Compilers } from './compilers.ts'
import { Event } from './message.ts'
import { compileCheck, type Check } from './schemas.ts'

/** One question of a set: the schemas of its data and of the replies. */
export class QuestionKind {
  readonly name: string
  readonly schemas: QuestionSchemas
  readonly #event: Event
  readonly #reply: MessageSchema | undefined
  #check: Check = data => data

  constructor (name: string, schemas: QuestionSchemas, validate: boolean) {
    const { data = {}, reply } = schemas
    this.name = name
    this.schemas = schemas
    this.#event = new Event(name, data as MessageSchema, validate)
    this.#reply = reply as MessageSchema | undefined
  }

  compile (compilers: Compilers): void {
    this.#event.compile(compilers)
    this.#check = compileCheck(this.#reply, { code: 'WSG_MESSAGE_INVALID', name: this.name }, compilers)
  }

  /** @throws {WebsocketGroupsError} WSG_EVENT_INVALID */
  async encode (data: unknown): Promise<string> {
    const encoded = await this.#event.encode(data)
    return 'json' in encoded ? encoded.json : 'null'
  }

  /** Returns the reply with its checked data, or with an error if the data does not match the schema. */
  async checked (reply: ClientReply): Promise<ClientReply> {
    if (reply.error !== undefined) return reply
    const { data, ...from } = reply
    try {
      return { ...from, data: await this.#check(data) }
    } catch (error) {
      const { code, message } = describeError(error)
      return { ...from, error: { code, message } }
    }
  }
}
