import { blockName, type Blocklist } from './blocklist.ts'
import type { Backplane, Envelope } from '../backplane/backplane.ts'
import { assertClose } from '../connection/close.ts'
import type { LocalConnection } from '../connection/connection.ts'
import { hasCode, WebsocketGroupsError } from '../errors.ts'
import { assertGroupName } from '../group-name.ts'
import type { Hub } from '../hub/hub.ts'
import { ownerOf } from '../ids.ts'
import type { Membership } from './membership.ts'
import type { Metrics } from '../metrics.ts'
import { InstanceRpc, type Command, type ConnectionCommand } from './rpc.ts'
import { assertData, userTarget, type EnvelopeFactory } from '../delivery/envelopes.ts'
import type { AnyConnection, BlockTarget, Data, JoinOptions, JoinResult, Json } from '../types.ts'

type Named = AnyConnection | string

/** Acts on a connection wherever it is: here at once, elsewhere by asking the instance that holds it. */
export class ConnectionCommands {
  readonly #hub: Hub
  readonly #membership: Membership
  readonly #envelopes: EnvelopeFactory
  readonly #rpc: InstanceRpc
  readonly #metrics: Metrics
  readonly #blocks: Blocklist

  constructor (
    hub: Hub, membership: Membership, backplane: Backplane, sender: EnvelopeFactory, timeoutMs: number, blocks: Blocklist, metrics: Metrics
  ) {
    this.#hub = hub
    this.#membership = membership
    this.#envelopes = sender
    this.#rpc = new InstanceRpc(backplane, sender, async (command, data) => await this.#serve(command, data), timeoutMs, metrics)
    this.#blocks = blocks
    this.#metrics = metrics
  }

  async join (connection: Named, group: string, options: JoinOptions = {}): Promise<JoinResult> {
    assertGroupName(group)
    return await this.#act(connection, { op: 'join', group, options: { ...options } }) as unknown as JoinResult
  }

  async leave (connection: Named, group: string): Promise<boolean> {
    assertGroupName(group)
    return await this.#act(connection, { op: 'leave', group }).catch(gone(false)) as boolean
  }

  async leaveAll (connection: Named): Promise<number> {
    return await this.#act(connection, { op: 'leaveAll' }).catch(gone(0)) as number
  }

  async groups (connection: Named): Promise<readonly string[]> {
    return await this.#act(connection, { op: 'groups' }) as string[]
  }

  async send (connection: Named, data: Data): Promise<boolean> {
    assertData(data)
    this.#metrics.messagesPublished++
    return await this.#act(connection, { op: 'send' }, data).catch(gone(false)) as boolean
  }

  async disconnect (connection: Named, code: number, reason: string): Promise<number> {
    assertClose(code, reason)
    return await this.#act(connection, { op: 'disconnect', code, reason }).catch(gone(0)) as number
  }

  /** Those here are closed in any case, also when the backplane cannot say whether the others are. */
  async disconnectUser (userId: string, code: number, reason: string): Promise<number> {
    const target = userTarget(userId)
    assertClose(code, reason)
    const here = this.#closeUser(userId, code, reason)
    const elsewhere = await this.#rpc.ask(target, { op: 'disconnectUser', userId, code, reason })
    return elsewhere.reduce<number>((sum, closed) => sum + Number(closed), here)
  }

  /** Keeps a user or a token out of all instances, or with 0 lets it in again. Resolves with how many connections were closed. */
  async block (target: BlockTarget, forMs: number): Promise<number> {
    const name = blockName(target)
    // Here in any case, also when the backplane is out.
    const here = this.#blocks.apply(name, forMs)
    await this.#blocks.store(name, forMs)
    const closed = await this.#rpc.ask({ kind: 'all', name: '' }, { op: 'block', name, forMs })
    return closed.reduce<number>((sum, count) => sum + Number(count), here)
  }

  /** A request or a reply of another instance. Never throws. */
  receive (envelope: Envelope): void {
    this.#rpc.receive(envelope)
  }

  close (): void {
    this.#rpc.close()
  }

  async #act (connection: Named, command: ConnectionCommand, data?: Data): Promise<Json> {
    const connectionId = typeof connection === 'string' ? connection : connection.id
    const owner = ownerOf(connectionId)
    if (owner === this.#envelopes.origin) return await this.#actHere(this.#held(connectionId), command, data)
    if (owner === undefined) throw new WebsocketGroupsError('WSG_CONNECTION_GONE', 'the id is none')
    const [answer] = await this.#rpc.ask({ kind: 'instance', name: owner }, { ...command, connectionId }, data)
    // Nobody listens there: the instance is gone, and its connections with it.
    if (answer === undefined) throw new WebsocketGroupsError('WSG_CONNECTION_GONE', connectionId)
    return answer
  }

  async #actHere (connection: LocalConnection, command: ConnectionCommand, data: Data = ''): Promise<Json> {
    switch (command.op) {
      case 'send': return connection.send(data)
      case 'join': return { ...await this.#membership.join(connection, command.group, command.options) }
      case 'leave': return await this.#membership.leave(connection, command.group)
      case 'leaveAll': return await this.#membership.leaveAll(connection)
      case 'groups': return groupsOf(connection)
      case 'disconnect': return closeOne(connection, command.code, command.reason)
    }
  }

  /** Another instance asks. */
  async #serve (command: Command, data: Data): Promise<Json> {
    if (command.op === 'disconnectUser') return this.#closeUser(command.userId, command.code, command.reason)
    if (command.op === 'block') return this.#blocks.apply(command.name, command.forMs)
    const answer = await this.#actHere(this.#held(command.connectionId), command, data) as Json | undefined
    if (answer === undefined) throw new Error(`it does not know the command ${String(command.op)}`)
    return answer
  }

  #closeUser (userId: string, code: number, reason: string): number {
    return this.#hub.connectionsOf(userId).reduce((closed, connection) => closed + closeOne(connection, code, reason), 0)
  }

  #held (connectionId: string): LocalConnection {
    const connection = this.#hub.connections.get(connectionId)
    if (connection === undefined) throw new WebsocketGroupsError('WSG_CONNECTION_GONE', connectionId)
    return connection
  }
}

function groupsOf (connection: LocalConnection): readonly string[] {
  if (connection.closed) throw new WebsocketGroupsError('WSG_CONNECTION_GONE', connection.id)
  return connection.groups
}

function closeOne (connection: LocalConnection, code: number, reason: string): number {
  if (connection.closed) return 0
  connection.close(code, reason)
  return 1
}

/** For calls that say so by their result. */
function gone<Result extends Json> (result: Result): (error: unknown) => Result {
  return error => {
    if (hasCode(error, 'WSG_CONNECTION_GONE')) return result
    throw error
  }
}
