import type { FastifyBaseLogger } from 'fastify'
import type { Backplane, Envelope } from '../backplane/backplane.ts'
import { assertClose } from '../connection/close.ts'
import type { LocalConnection } from '../connection/connection.ts'
import { assertData } from '../connection/outbound/message.ts'
import type { EnvelopeFactory } from '../delivery/envelopes.ts'
import { WebsocketGroupsError } from '../errors.ts'
import { assertGroupName, assertUserId } from '../group-name.ts'
import type { Hub } from '../hub/hub.ts'
import type { Metrics } from '../metrics.ts'
import type { Streams } from '../streams/streams.ts'
import type { BlockTarget, Data, GroupList, GroupListOptions, JoinOptions, JoinResult } from '../types.ts'
import { blockName, userOfBlock, type Blocklist } from './blocklist.ts'
import { DeliveryReports } from './delivery-reports.ts'
import { Everywhere, withDone } from './everywhere.ts'
import type { Membership } from './membership.ts'
import { InstanceMessages } from './instances.ts'
import { gone, groupNames, idOf, onceStored, packUserIds, RemoteCommands, type Named, type OwnAnswers } from './remote-commands.ts'
import { StreamCommands } from './stream-commands.ts'
import { InstanceRpc, type Answers, type Command, type CommandHandler, type ConnectionCommand, type UserAct } from './rpc.ts'

/** Acts on a connection wherever it is: directly on one of this instance, otherwise through the instance that holds it. */
export class ConnectionCommands {
  readonly instances: InstanceMessages
  readonly reports: DeliveryReports
  readonly streams: StreamCommands
  readonly #hub: Hub
  readonly #membership: Membership
  readonly #rpc: InstanceRpc
  readonly #everywhere: Everywhere
  readonly #remote: RemoteCommands
  readonly #own: OwnAnswers
  readonly #blocks: Blocklist
  readonly #metrics: Metrics

  constructor (
    hub: Hub, membership: Membership, backplane: Backplane, envelopes: EnvelopeFactory, timeoutMs: number, blocks: Blocklist,
    metrics: Metrics, log: FastifyBaseLogger, streams: Streams
  ) {
    this.#hub = hub
    this.#membership = membership
    const serve: CommandHandler = async (command, data, here) => await this.#serve(command, data, here)
    this.#rpc = new InstanceRpc(backplane, envelopes, serve, timeoutMs, metrics)
    this.#everywhere = new Everywhere(backplane, this.#rpc, envelopes.origin)
    this.#remote = new RemoteCommands(this.#everywhere, envelopes.origin)
    this.streams = new StreamCommands(streams, this.#everywhere, envelopes.origin)
    this.#own = {
      groups: options => groupNames(hub.groups(), options),
      connections: () => hub.clientCount,
      users: () => packUserIds(hub.userIds())
    }
    this.instances = new InstanceMessages(() => this.#rpc, timeoutMs, log, metrics.lines)
    this.reports = new DeliveryReports(this.#rpc, envelopes, (targets, exclusive) => {
      return { recipients: hub.countRecipients(targets, exclusive), slow: hub.countSlow(targets, exclusive) }
    })
    this.#blocks = blocks
    this.#metrics = metrics
  }

  async join (connection: Named, group: string, options?: JoinOptions): Promise<JoinResult> {
    const here = this.#find(connection)
    if (here !== undefined) return await this.#membership.join(here, group, options)
    return await this.#remote.join(connection, group, options)
  }

  async leave (connection: Named, group: string, reason?: string): Promise<boolean> {
    assertGroupName(group)
    const here = this.#find(connection)
    if (here !== undefined) return await this.#membership.putOut(here, group, 'connection', reason)
    return await this.#remote.leave(connection, group, reason)
  }

  /** The client of a connection of this instance asked to leave. Resolves with whether the connection was in the group. */
  async leaveAsClient (connection: Named, group: string): Promise<boolean> {
    const here = this.#find(connection)
    return here !== undefined && await this.#membership.leave(here, group)
  }

  /** The user of a connection of this instance may no longer be in the group. Resolves with whether the connection was in it. */
  async putOut (connection: Named, group: string): Promise<boolean> {
    const here = this.#find(connection)
    return here !== undefined && await this.#membership.putOut(here, group, 'user')
  }

  async leaveAll (connection: Named): Promise<number> {
    const here = this.#find(connection)
    return here === undefined ? await this.#remote.leaveAll(connection) : await this.#membership.putOutOfAll(here)
  }

  async groups (connection: Named): Promise<readonly string[]> {
    const here = this.#find(connection)
    return here === undefined ? await this.#remote.groups(connection) : groupsOf(here)
  }

  async send (connection: Named, data: Data): Promise<boolean> {
    assertData(data)
    this.#metrics.messagesPublished++
    const here = this.#find(connection)
    return here === undefined ? await this.#remote.send(connection, data) : here.send(data)
  }

  async disconnect (connection: Named, code: number, reason: string): Promise<number> {
    assertClose(code, reason)
    const here = this.#find(connection)
    return here === undefined ? await this.#remote.disconnect(connection, code, reason) : closeOne(here, code, reason)
  }

  /** Puts all connections of the user into the group. Resolves with how many of them are in it then. */
  async joinUser (userId: string, group: string, options?: JoinOptions): Promise<number> {
    assertGroupName(group)
    assertUserId(userId)
    return await this.#remote.joinUser(userId, group, options, await this.#joinHere(userId, group, options))
  }

  /** Takes all connections of the user out of the group. Resolves with how many of them were in it. */
  async leaveUser (userId: string, group: string, reason?: string): Promise<number> {
    assertGroupName(group)
    assertUserId(userId)
    await this.#membership.putOutUser(userId, group)
    const here = await this.#leaveHere(userId, group, reason)
    const left = await this.#remote.leaveUser(userId, group, reason, here)
    // Revoke once more: messages that reached a connection before it left must not prove a right to later ones.
    if (left > here) await this.#membership.putOutUser(userId, group)
    return left
  }

  /** The groups that any of the user's connections is in. */
  async groupsOfUser (userId: string): Promise<readonly string[]> {
    return await this.#remote.groupsOfUser(userId, this.#groupsHere(userId))
  }

  /** Closes the connections here in any case, even when the backplane cannot say whether those elsewhere are closed. */
  async disconnectUser (userId: string, code: number, reason: string): Promise<number> {
    assertUserId(userId)
    assertClose(code, reason)
    return await this.#remote.disconnectUser(userId, code, reason, this.#closeUser(userId, code, reason))
  }

  /** Blocks a user or a token on all instances, or with `forMs` 0 unblocks it. Resolves with how many connections were closed. */
  async block (target: BlockTarget, forMs: number): Promise<number> {
    const name = blockName(target)
    const userId = userOfBlock(name)
    const remembered = userId === undefined || forMs === 0 ? undefined : this.#membership.userBlocked(userId, forMs)
    // Close the connections of this instance in any case, even while the backplane is out.
    const here = this.#blocks.apply(name, forMs)
    await withDone(here, this.#blocks.store(name, forMs))
    // Wait for nothing else in between: instances must hear of a block and of an unblock in the order in which the two are stored.
    const [closed] = await Promise.all([onceStored(this.#remote.block(name, forMs, here)), remembered])
    return closed
  }

  async groupList (options?: GroupListOptions): Promise<GroupList> {
    return await this.#remote.groupList(options, this.#own)
  }

  async connectionCount (): Promise<number> {
    return await this.#remote.connectionCount(this.#own)
  }

  async userCount (): Promise<number> {
    return await this.#remote.userCount(this.#own)
  }

  /** Takes a request or a reply of another instance. Never throws. */
  receive (envelope: Envelope): void {
    this.#rpc.receive(envelope)
  }

  close (): void {
    this.#rpc.close()
  }

  /** The connection, if this instance holds it. Looked up by id: the object may belong to another instance in this process. */
  #find (connection: Named): LocalConnection | undefined {
    return this.#hub.connections.get(idOf(connection) ?? '')
  }

  /** Carries out a command of an instance. `here`: the command came from this instance, which has done its own part already. */
  async #serve (command: Command, data: Data, here: boolean): Promise<Answers[Command['op']]> {
    switch (command.op) {
      case 'app': return await this.instances.receive(command.name, command.payload, command.ask)
      case 'user': return here ? command.act.op === 'groups' ? [] : 0 : await this.#actOnUser(command.userId, command.act)
      case 'disconnectUser': return this.#closeUser(command.userId, command.code, command.reason)
      case 'block': return this.#blocks.apply(command.name, command.forMs)
      case 'stopStream': return this.streams.stopHere(command.stream)
      case 'groupNames': return here ? [] : this.#own.groups(command)
      case 'connectionCount': return here ? 0 : this.#own.connections()
      case 'reach': return this.reports.here(command.targets, command)
      case 'userIds': return here ? '' : this.#own.users()
      default: return await this.#serveConnection(command, data)
    }
  }

  async #serveConnection (
    command: ConnectionCommand & { readonly connectionId: string }, data: Data
  ): Promise<Answers[ConnectionCommand['op']]> {
    const connection = this.#find(command.connectionId)
    if (connection === undefined) throw new WebsocketGroupsError('WSG_CONNECTION_GONE', command.connectionId)
    switch (command.op) {
      case 'send': return connection.send(data)
      case 'join': return await this.#membership.join(connection, command.group, command.options)
      case 'leave': return await this.#membership.putOut(connection, command.group, 'connection', command.reason)
      case 'leaveAll': return await this.#membership.putOutOfAll(connection)
      case 'groups': return groupsOf(connection)
      case 'disconnect': return closeOne(connection, command.code, command.reason)
      default: throw new Error(`this version does not know the command ${String((command as { op: unknown }).op)}`)
    }
  }

  async #actOnUser (userId: string, act: UserAct): Promise<Answers['user']> {
    switch (act.op) {
      case 'join': return await this.#joinHere(userId, act.group, act.options)
      case 'leave': return await this.#leaveHere(userId, act.group, act.reason)
      case 'groups': return this.#groupsHere(userId)
    }
  }

  async #joinHere (userId: string, group: string, options: JoinOptions | undefined): Promise<number> {
    return await this.#countHere(userId, async connection => {
      return await this.#membership.join(connection, group, options).then(() => true, gone(false))
    })
  }

  async #leaveHere (userId: string, group: string, reason: string | undefined): Promise<number> {
    return await this.#countHere(userId, async connection => await this.#membership.putOut(connection, group, 'connection', reason))
  }

  /** Counts the user's connections here for which `act` resolves with `true`. */
  async #countHere (userId: string, act: (connection: LocalConnection) => Promise<boolean>): Promise<number> {
    return (await Promise.all(this.#hub.connectionsOf(userId).map(act))).filter(Boolean).length
  }

  #groupsHere (userId: string): readonly string[] {
    return [...new Set(this.#hub.connectionsOf(userId).flatMap(({ groups }) => groups))]
  }

  #closeUser (userId: string, code: number, reason: string): number {
    return this.#hub.connectionsOf(userId).reduce((closed, connection) => closed + closeOne(connection, code, reason), 0)
  }
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
