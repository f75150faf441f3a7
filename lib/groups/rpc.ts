import type { Backplane, Envelope, StreamName, Target } from '../backplane/backplane.ts'
import { errorCodes, hasCode, WebsocketGroupsError, type ErrorCode } from '../errors.ts'
import type { Metrics } from '../metrics.ts'
import { deferred, withProgress } from '../deadline.ts'
import type { EnvelopeFactory } from '../delivery/envelopes.ts'
import type { Exclusive } from '../hub/exclusion.ts'
import { toError } from '../thrown.ts'
import type { Data, GroupListOptions, JoinOptions, JoinResult } from '../types.ts'

/** What one instance may ask of another. The payload of `send` travels beside the command, unchanged. */
export type Command =
  | ConnectionCommand & { readonly connectionId: string }
  | { readonly op: 'disconnectUser', readonly userId: string, readonly code: number, readonly reason: string }
  | { readonly op: 'user', readonly userId: string, readonly act: UserAct }
  | { readonly op: 'app', readonly name: string, readonly payload: unknown, readonly ask: boolean }
  | { readonly op: 'block', readonly name: string, readonly forMs: number }
  | { readonly op: 'stopStream', readonly stream: StreamName }
  | { readonly op: 'groupNames' } & GroupListOptions
  | { readonly op: 'connectionCount' | 'userIds' }
  | { readonly op: 'reach', readonly targets: readonly Target[] } & Exclusive

/** What can be done to all connections of a user. */
export type UserAct =
  | { readonly op: 'join', readonly group: string, readonly options?: JoinOptions }
  | { readonly op: 'leave', readonly group: string, readonly reason: string | undefined }
  | { readonly op: 'groups' }

/** What an instance answers, by command. */
export interface Answers {
  readonly send: boolean
  readonly join: JoinResult
  readonly leave: boolean
  readonly leaveAll: number
  readonly groups: readonly string[]
  readonly disconnect: number
  readonly disconnectUser: number
  readonly block: number
  /** Whether the stream was open. */
  readonly stopStream: boolean
  /** How many connections joined or left, or the groups that they are in. */
  readonly user: number | readonly string[]
  readonly groupNames: readonly string[]
  readonly connectionCount: number
  /** As `packUserIds`. */
  readonly userIds: string
  /** How many connections here a message is for, and how many of them are slow. */
  readonly reach: { readonly recipients: number, readonly slow: number }
  readonly app: { readonly answer?: unknown, readonly failed?: string }
}

/** What can be done to one connection. */
export type ConnectionCommand =
  | { readonly op: 'send' | 'leaveAll' | 'groups' }
  | { readonly op: 'join', readonly group: string, readonly options?: JoinOptions }
  | { readonly op: 'leave', readonly group: string, readonly reason?: string | undefined }
  | { readonly op: 'disconnect', readonly code: number, readonly reason: string }

/** Resolves with the answer, which travels as JSON. */
export type CommandHandler = (command: Command, data: Data, here: boolean) => Promise<unknown>

/** Ends the wait for answers. */
const late = new Error('late')

interface PartialAnswers { readonly answers: readonly unknown[], readonly missing: number }

/** The answers that came before all instances had answered or time was up. */
interface Collected {
  /** The answers by the id of the instance. */
  readonly answers: ReadonlyMap<string, unknown>
  /** Whether every instance that took the request answered it. */
  readonly complete: boolean
}

interface Pending {
  readonly answers: Map<string, unknown>
  /** How many instances took the request; unknown until the publish is acknowledged. */
  expected: number
  /** How many instances failed, if the request goes on without them. */
  lost: number
  settle (error?: unknown): void
}

/** Requests to other instances and their replies, over the backplane's `instance`, `user` and `all` targets. */
export class InstanceRpc {
  readonly #backplane: Pick<Backplane, 'publish'>
  readonly #envelopes: EnvelopeFactory
  readonly #handle: CommandHandler
  readonly #timeoutMs: number
  readonly #metrics: Pick<Metrics, 'repliesLost'>
  readonly #pending = new Map<number, Pending>()
  #lastId = 0
  #closed = false

  constructor (
    backplane: Pick<Backplane, 'publish'>, envelopes: EnvelopeFactory, handle: CommandHandler, timeoutMs: number,
    metrics: Pick<Metrics, 'repliesLost'>
  ) {
    this.#backplane = backplane
    this.#envelopes = envelopes
    this.#handle = handle
    this.#timeoutMs = timeoutMs
    this.#metrics = metrics
  }

  /** How long an answer may take (milliseconds). */
  get timeoutMs (): number {
    return this.#timeoutMs
  }

  /**
   * Asks every instance behind the target. Resolves with one answer from each; with no answers when there is no such instance.
   * @throws {WebsocketGroupsError} WSG_TIMEOUT, WSG_BACKPLANE_UNAVAILABLE, WSG_CLOSED, or what the other instance threw
   */
  async ask (target: Target, command: Command, data?: Data): Promise<readonly unknown[]> {
    const { answers, complete } = await this.collect(target, command, this.#timeoutMs, data)
    if (complete) return [...answers.values()]
    throw new WebsocketGroupsError('WSG_TIMEOUT', `${command.op} was not answered by ${target.kind} ${target.name}`)
  }

  /**
   * As `ask`, but resolves after `ms` milliseconds with the answers so far.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT (of the publish), WSG_CLOSED, or what another instance threw
   */
  async collect (target: Target, command: Command, ms: number, data?: Data): Promise<Collected> {
    return await this.#request(target, command, ms, false, data)
  }

  /**
   * Sends a command that needs no answer.
   * @throws {WebsocketGroupsError} WSG_TIMEOUT, WSG_BACKPLANE_UNAVAILABLE, WSG_CLOSED
   */
  async tell (target: Target, command: Command): Promise<void> {
    this.#assertOpen()
    await this.#backplane.publish([target], this.#envelopes.command('request', target, JSON.stringify({ id: 0, ...command })))
  }

  /** As `ask`, but counts instances that do not answer in time as missing, instead of rejecting. */
  async askAll (target: Target, command: Command, timeoutMs: number): Promise<PartialAnswers> {
    const { answers, expected } = await this.#request(target, command, timeoutMs, true)
    // How many instances were asked is unknown until the publish is acknowledged.
    const missing = Number.isFinite(expected) ? Math.max(expected - answers.size, 0) : 1
    return { answers: [...answers.values()], missing }
  }

  /** `tolerant`: an instance that fails does not fail the request, because the others may still answer. */
  async #request (
    target: Target, command: Command, ms: number, tolerant: boolean, data?: Data
  ): Promise<Collected & Pick<Pending, 'expected'>> {
    this.#assertOpen()
    const id = ++this.#lastId
    const envelope = this.#envelopes.command('request', target, JSON.stringify({ id, ...command }), data)
    const answers = new Map<string, unknown>()
    const complete = deferred()
    const settle = (error?: unknown): void => {
      if (error !== undefined && !tolerant) return complete.reject(error as Error)
      if (error !== undefined) pending.lost++
      if (answers.size + pending.lost < pending.expected && !hasCode(error, 'WSG_CLOSED')) return
      // At once: a second answer of an instance may come in the same turn.
      this.#pending.delete(id)
      complete.resolve()
    }
    const pending: Pending = { answers, expected: Infinity, lost: 0, settle }
    this.#pending.set(id, pending)
    try {
      this.#backplane.publish([target], envelope).then(receivers => {
        pending.expected = receivers ?? 1
        if (answers.size + pending.lost >= pending.expected) settle()
      }, (error: Error) => complete.reject(error))
      // Where this process was busy until then, answers that have come are read first.
      await withProgress(complete.promise, ms, () => -Infinity, () => { throw late })
      return { answers, expected: pending.expected, complete: true }
    } catch (error) {
      if (error !== late) throw error
      return { answers, expected: pending.expected, complete: false }
    } finally {
      this.#pending.delete(id)
    }
  }

  /** Takes a request or a reply that came from the backplane. Never throws. */
  receive (envelope: Envelope): void {
    const message = parse(envelope.command)
    // This is not a message of this package. If somebody waits for an answer, the deadline ends the wait.
    if (message === undefined) return
    if (envelope.kind === 'reply') this.#settle(message as unknown as Reply, envelope.origin)
    else void this.#serve(message, envelope)
  }

  close (): void {
    this.#closed = true
    for (const { settle } of [...this.#pending.values()]) settle(new WebsocketGroupsError('WSG_CLOSED'))
  }

  #assertOpen (): void {
    if (this.#closed) throw new WebsocketGroupsError('WSG_CLOSED')
  }

  #settle ({ id, answer, error }: Reply, origin: string): void {
    const pending = this.#pending.get(id)
    // The reply is late: the deadline has settled the request.
    if (pending === undefined) return
    if (error !== undefined) return pending.settle(deserializeError(error))
    pending.answers.set(origin, answer ?? null)
    if (pending.answers.size + pending.lost >= pending.expected) pending.settle()
  }

  async #serve ({ id, ...command }: Message, { origin, payload, binary }: Envelope): Promise<void> {
    const here = origin === this.#envelopes.origin
    let reply: Reply
    let encoded: string
    try {
      const data = binary ? payload : payload.toString()
      reply = { id, answer: await this.#handle(command as unknown as Command, data, here) }
      encoded = JSON.stringify(reply)
    } catch (error) {
      reply = { id, error: serializeError(error) }
      encoded = JSON.stringify(reply)
    }
    if ('ask' in command && command.ask === false) return
    if (here) return this.#settle(reply, origin)
    const target: Target = { kind: 'instance', name: origin }
    const envelope = this.#envelopes.command('reply', target, encoded)
    // The instance that asked then runs into its deadline, which tells the truth: this instance could not answer.
    await this.#backplane.publish([target], envelope).catch(() => { this.#metrics.repliesLost++ })
  }
}

interface Message { readonly id: number }

interface Reply extends Message {
  readonly answer?: unknown
  readonly error?: PackedError
}

interface PackedError { readonly code: ErrorCode, readonly detail?: string }

function parse (command: string): Message | undefined {
  try {
    const message = JSON.parse(command) as Message | null
    return typeof message?.id === 'number' ? message : undefined
  } catch {
    return undefined
  }
}

/** Serializes what the handler threw. An error without a code of this package is reduced to its message. */
function serializeError (error: unknown): PackedError {
  const code = (Object.keys(errorCodes) as ErrorCode[]).find(code => hasCode(error, code))
  if (code !== undefined) return { code, detail: (error as { detail?: string }).detail }
  return { code: 'WSG_TIMEOUT', detail: `the other instance failed: ${toError(error).message}` }
}

/** Reads an error of another instance, which may be of a newer version and know codes that this version does not. */
function deserializeError (error: unknown): WebsocketGroupsError {
  const { code, detail } = (error ?? {}) as { code?: unknown, detail?: unknown }
  const known = typeof code === 'string' && Object.hasOwn(errorCodes, code)
  if (!known) return new WebsocketGroupsError('WSG_TIMEOUT', `the other instance failed with ${String(code)}`)
  return new WebsocketGroupsError(code as ErrorCode, typeof detail === 'string' ? detail : undefined)
}
