import type { FastifyBaseLogger } from 'fastify'
import { toJson } from '../connection/outbound/message.ts'
import { withDeadline } from '../deadline.ts'
import { allInstances } from '../delivery/envelopes.ts'
import { isOutage, WebsocketGroupsError } from '../errors.ts'
import type { BoundedLog } from '../logging.ts'
import { checkCall } from '../options/calls.ts'
import { aFunction, check, type Rule } from '../options/rules.ts'
import type { Asked, AskOptions, InstanceEvents, Instances, Removal } from '../types.ts'
import type { Answers, InstanceRpc } from './rpc.ts'

type Handler = (payload: never) => unknown

const aName: Rule = { allowed: 'a non-empty string', accepts: name => typeof name === 'string' && name !== '' }
const maxPayloadBytes = 1_048_576
/** Larger than a payload: an instance may answer with the ids of all its connections. */
const maxAnswerBytes = 4 * maxPayloadBytes

/** Messages between the instances of an application, by name: `registry.instances`. */
export class InstanceMessages implements Instances {
  readonly #rpc: () => InstanceRpc
  readonly #timeoutMs: number
  readonly #log: FastifyBaseLogger
  readonly #lines: BoundedLog
  readonly #handlers = new Map<string, Set<Handler>>()

  constructor (rpc: () => InstanceRpc, timeoutMs: number, log: FastifyBaseLogger, lines: BoundedLog) {
    this.#rpc = rpc
    this.#timeoutMs = timeoutMs
    this.#log = log
    this.#lines = lines
  }

  on<Name extends keyof InstanceEvents & string> (name: Name, handler: (payload: InstanceEvents[Name]) => unknown): Removal {
    check('instances.on: name', name, aName)
    check('instances.on: handler', handler, aFunction)
    const handlers = this.#handlers.get(name) ?? new Set()
    // Wrap the function: two parts of an application may pass the same one, and the removal of one handler must not remove the other.
    const added: Handler = payload => handler(payload)
    this.#handlers.set(name, handlers.add(added))
    const remove = (): void => {
      handlers.delete(added)
      // Drop the name, too: an application may make up names for a single answer.
      if (handlers.size === 0 && this.#handlers.get(name) === handlers) this.#handlers.delete(name)
    }
    return Object.assign(remove, { [Symbol.dispose]: remove })
  }

  async emit<Name extends keyof InstanceEvents & string> (name: Name, payload: InstanceEvents[Name]): Promise<void> {
    check('instances.emit: name', name, aName)
    await this.#rpc().tell(allInstances, { op: 'app', name, payload: checked(payload), ask: false })
  }

  async ask<Name extends keyof InstanceEvents & string> (
    name: Name, payload: InstanceEvents[Name], options: AskOptions = {}
  ): Promise<Asked> {
    check('instances.ask: name', name, aName)
    checkCall('ask', options)
    const { timeoutMs = this.#timeoutMs } = options
    const command = { op: 'app', name, payload: checked(payload), ask: true } as const
    try {
      const { answers, missing } = await this.#rpc().askAll(allInstances, command, timeoutMs)
      return asked(answers as ReadonlyArray<Answers['app']>, missing)
    } catch (error) {
      if (!isOutage(error)) throw error
      const late = (): Answers['app'] => ({ failed: 'no answer in time' })
      const own = await withDeadline(this.receive(name, command.payload, true), timeoutMs, late)
      return { ...asked([own], 1), scope: 'local' }
    }
  }

  /** Runs the handlers for what an instance, maybe this one, emitted or asked (`ask`). Never rejects. */
  async receive (name: string, payload: unknown, ask: boolean): Promise<Answers['app']> {
    const results = await Promise.allSettled(Array.from(this.#handlers.get(name) ?? [], async (handler, index) => {
      const answer = await handler(payload as never)
      // Only the answer of the first handler travels, as JSON. Nobody waits for the answer to an `emit`.
      return ask && index === 0 ? checked(answer, maxAnswerBytes) : undefined
    }))
    const failed = results.find(result => result.status === 'rejected')
    if (failed !== undefined) {
      this.#lines.write(this.#log, 'instances_handler_failed', { err: failed.reason, name })
      return { failed: 'a handler failed' }
    }
    // An instance without a handler has nothing to answer.
    const [first] = results
    return first === undefined ? { failed: 'no handler' } : { answer: (first as PromiseFulfilledResult<unknown>).value }
  }
}

function asked (answers: ReadonlyArray<Answers['app']>, missing: number): Asked {
  const replies = answers.filter(({ failed }) => failed === undefined).map(({ answer }) => answer)
  return { replies, missing: missing + answers.length - replies.length }
}

/**
 * The value after a round trip through JSON: plain data, which a `toJSON` of the application cannot change when it is encoded again.
 * @throws {WebsocketGroupsError} WSG_DATA_INVALID
 */
function checked (value: unknown, maxBytes = maxPayloadBytes): unknown {
  const json = toJson(value ?? null)
  if (Buffer.byteLength(json) > maxBytes) {
    throw new WebsocketGroupsError('WSG_DATA_INVALID', `more than ${maxBytes / 1_048_576} MiB of JSON`)
  }
  return JSON.parse(json)
}
