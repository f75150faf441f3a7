import type { FastifyBaseLogger } from 'fastify'
import type { Backplane, Envelope } from '../backplane/backplane.ts'
import { assertClose } from '../connection/close.ts'
import type { LocalConnection } from '../connection/connection.ts'
import { assertData } from '../connection/outbound/message.ts'
import { userTarget, type EnvelopeFactory } from '../delivery/envelopes.ts'
import { hasCode, WebsocketGroupsError } from '../errors.ts'
import { assertGroupName } from '../group-name.ts'
import type { Hub } from '../hub/hub.ts'
import { ownerOf } from '../ids.ts'
import type { Metrics } from '../metrics.ts'
import type { AnyConnection, BlockTarget, Data, JoinOptions, JoinResult } from '../types.ts'
import { blockName, type Blocklist } from './blocklist.ts'
import { Everywhere } from './everywhere.ts'
import type { Membership } from './membership.ts'
import { InstanceMessages } from './instances.ts'
import { InstanceRpc, type Answers, type Command, type CommandHandler, type ConnectionCommand, type UserAct } from './rpc.ts'

type Named = AnyConnection | string

/** Acts on a connection wherever it is: at once on one of this instance, else by asking the instance that holds it. */
export class ConnectionCommands {
  readonly instances: InstanceMessages
  readonly #hub: Hub
  readonly #membership: Membership
  readonly #envelopes: EnvelopeFactory
  readonly #rpc: InstanceRpc
  readonly #everywhere: Everywhere
  readonly #blocks: Blocklist
  readonly #metrics: Metrics

  constructor (
    hub: Hub, membership: Membership, backplane: Backplane, envelopes: EnvelopeFactory, timeoutMs: number, blocks: Blocklist,
    metrics: Metrics, log: FastifyBaseLogger
  ) {
    this.#hub = hub
    this.#membership = membership
    this.#envelopes = envelopes
    const serve: CommandHandler = async (command, data, here) => await this.#serve(command, data, here)
    this.#rpc = new InstanceRpc(backplane, envelopes, serve, timeoutMs, metrics)
    this.#everywhere = new Everywhere(backplane, this.#rpc, envelopes.origin)
    this.instances = new InstanceMessages(() => this.#rpc, timeoutMs, log, metrics.lines)
    this.#blocks = blocks
    this.#metrics = metrics
  }

  async join (connection: Named, group: string, options: JoinOptions = {}): Promise<JoinResult> {
    const here = this.#find(connection)
    if (here !== undefined) return await this.#membership.join(here, group, options)
    assertGroupName(group)
    return await this.#ask(connection, { op: 'join', group, options })
  }

  async leave (connection: Named, group: string, reason?: string): Promise<boolean> {
    assertGroupName(group)
    const here = this.#find(connection)
    if (here !== undefined) return await this.#membership.leave(here, group, reason)
    return await this.#ask(connection, { op: 'leave', group, reason }).catch(gone(false))
  }

  async leaveAll (connection: Named): Promise<number> {
    const here = this.#find(connection)
    if (here !== undefined) return await this.#membership.leaveAll(here)
    return await this.#ask(connection, { op: 'leaveAll' }).catch(gone(0))
  }

  async groups (connection: Named): Promise<readonly string[]> {
    const here = this.#find(connection)
    return here === undefined ? await this.#ask(connection, { op: 'groups' }) : groupsOf(here)
  }

  async send (connection: Named, data: Data): Promise<boolean> {
    assertData(data)
    this.#metrics.messagesPublished++
    const here = this.#find(connection)
    if (here !== undefined) return here.send(data)
    return await this.#ask(connection, { op: 'send' }, data).catch(gone(false))
  }

  async disconnect (connection: Named, code: number, reason: string): Promise<number> {
    assertClose(code, reason)
    const here = this.#find(connection)
    if (here !== undefined) return closeOne(here, code, reason)
    return await this.#ask(connection, { op: 'disconnect', code, reason }).catch(gone(0))
  }

  /** Puts all connections of the user into the group. Resolves with how many are in it then. */
  async joinUser (userId: string, group: string, options: JoinOptions = {}): Promise<number> {
    assertGroupName(group)
    return await this.#actOnUser(userId, { op: 'join', group, options })
  }

  /** Takes all connections of the user out of the group. Resolves with how many were in it. */
  async leaveUser (userId: string, group: string, reason?: string): Promise<number> {
    assertGroupName(group)
    return await this.#actOnUser(userId, { op: 'leave', group, reason })
  }

  /** The groups that any of the user's connections is in. */
  async groupsOfUser (userId: string): Promise<readonly string[]> {
    const answers = await this.#askUser(userId, { op: 'groups' })
    return [...new Set(answers.flatMap(groups => groups as readonly string[]))].sort()
  }

  async #actOnUser (userId: string, act: UserAct): Promise<number> {
    const answers = await this.#askUser(userId, act)
    return answers.reduce<number>((sum, count) => sum + Number(count), 0)
  }

  /** Asks all other instances that have connections of the user; this one acts without being asked. */
  async #askUser (userId: string, act: UserAct): Promise<readonly unknown[]> {
    const target = userTarget(userId)
    const here = await this.#actHere(userId, act)
    return [here, ...await this.#rpc.ask(target, { op: 'user', userId, act })]
  }

  async #actHere (userId: string, act: UserAct): Promise<Answers['user']> {
    const connections = this.#hub.connectionsOf(userId)
    if (act.op === 'groups') return [...new Set(connections.flatMap(({ groups }) => groups))]
    const acted = await Promise.all(connections.map(async connection => {
      if (act.op === 'leave') return await this.#membership.leave(connection, act.group, act.reason)
      return await this.#membership.join(connection, act.group, act.options).then(() => true, gone(false))
    }))
    return acted.filter(Boolean).length
  }

  /** Closes the connections here in any case, even when the backplane cannot say whether those elsewhere are closed. */
  async disconnectUser (userId: string, code: number, reason: string): Promise<number> {
    const target = userTarget(userId)
    assertClose(code, reason)
    const here = this.#closeUser(userId, code, reason)
    return await this.#everywhere.close(target, { op: 'disconnectUser', userId, code, reason }, here)
  }

  /** Keeps a user or a token out of all instances, or with 0 lets it in again. Resolves with how many connections were closed. */
  async block (target: BlockTarget, forMs: number): Promise<number> {
    const name = blockName(target)
    // Closes those here in any case, even while the backplane is out.
    const here = this.#blocks.apply(name, forMs)
    await this.#blocks.store(name, forMs)
    return await this.#everywhere.close({ kind: 'all', name: '' }, { op: 'block', name, forMs }, here, true)
  }

  /** Takes a request or a reply of another instance. Never throws. */
  receive (envelope: Envelope): void {
    this.#rpc.receive(envelope)
  }

  close (): void {
    this.#rpc.close()
  }

  /** The connection, if this instance holds it. Looked up by id: the object may be of another instance in this process. */
  #find (connection: Named): LocalConnection | undefined {
    return this.#hub.connections.get(idOf(connection) ?? '')
  }

  /**
   * Asks the instance that holds the connection.
   * @throws {WebsocketGroupsError} WSG_CONNECTION_GONE, and what `Everywhere.askOne` throws
   */
  async #ask<Asked extends ConnectionCommand> (connection: Named, command: Asked, data?: Data): Promise<Answers[Asked['op']]> {
    const connectionId = idOf(connection)
    const owner = connectionId === undefined ? undefined : ownerOf(connectionId)
    if (connectionId === undefined || owner === undefined) {
      throw new WebsocketGroupsError('WSG_CONNECTION_GONE', 'neither a connection nor the id of one')
    }
    if (owner === this.#envelopes.origin) throw new WebsocketGroupsError('WSG_CONNECTION_GONE', connectionId)
    const answer = await this.#everywhere.askOne(owner, { ...command, connectionId }, data)
    // The instance does not live, so its connections are gone.
    if (answer === undefined) throw new WebsocketGroupsError('WSG_CONNECTION_GONE', connectionId)
    // The other instance runs this code, and answers what `#serve` returns.
    return answer as Answers[Asked['op']]
  }

  /** Another instance asks. */
  async #serve (command: Command, data: Data, here: boolean): Promise<Answers[Command['op']]> {
    if (command.op === 'app') return await this.instances.receive(command.name, command.payload)
    // This instance did it before it asked the others.
    if (command.op === 'user') return here ? command.act.op === 'groups' ? [] : 0 : await this.#actHere(command.userId, command.act)
    if (command.op === 'disconnectUser') return this.#closeUser(command.userId, command.code, command.reason)
    if (command.op === 'block') return this.#blocks.apply(command.name, command.forMs)
    const connection = this.#find(command.connectionId)
    if (connection === undefined) throw new WebsocketGroupsError('WSG_CONNECTION_GONE', command.connectionId)
    switch (command.op) {
      case 'send': return connection.send(data)
      case 'join': return await this.#membership.join(connection, command.group, command.options)
      case 'leave': return await this.#membership.leave(connection, command.group, command.reason)
      case 'leaveAll': return await this.#membership.leaveAll(connection)
      case 'groups': return groupsOf(connection)
      case 'disconnect': return closeOne(connection, command.code, command.reason)
      default: throw new Error(`this version does not know the command ${String((command as { op: unknown }).op)}`)
    }
  }

  #closeUser (userId: string, code: number, reason: string): number {
    return this.#hub.connectionsOf(userId).reduce((closed, connection) => closed + closeOne(connection, code, reason), 0)
  }
}

/** `undefined` for what a caller without types may pass instead of a connection. */
function idOf (connection: unknown): string | undefined {
  const id: unknown = typeof connection === 'object' && connection !== null ? (connection as { id?: unknown }).id : connection
  return typeof id === 'string' ? id : undefined
}

function groupsOf (connection: LocalConnection): readonly string[] {
  if (connection.closed) throw new WebsocketGroupsError('WSG_CONNECTION_GONE', connection.id)
  return connection.groups
}

/** Returns how many connections it closed: one or none. */
function closeOne (connection: LocalConnection, code: number, reason: string): number {
  if (connection.closed) return 0
  connection.close(code, reason)
  return 1
}

/** For calls that report a connection which is gone by their result. */
function gone<Result> (result: Result): (error: unknown) => Result {
  return error => {
    if (hasCode(error, 'WSG_CONNECTION_GONE')) return result
    throw error
  }
}
