import { createHash } from 'node:crypto'
import { assertClose } from '../connection/close.ts'
import { assertData, toJson } from '../connection/outbound/message.ts'
import { allInstances, userTarget } from '../delivery/envelopes.ts'
import { hasCode, WebsocketGroupsError } from '../errors.ts'
import { assertGroupName } from '../group-name.ts'
import { ownerOf } from '../ids.ts'
import type {
  AnyConnection, BroadcastOptions, BroadcastResult, Data, GroupList, GroupListOptions, JoinOptions, JoinResult, Publisher, Recipients,
  UserTarget
} from '../types.ts'
import type { Everywhere } from './everywhere.ts'
import { listOf } from './lists.ts'
import { itemsAfter, pageOf } from './pages.ts'
import type { Answers, ConnectionCommand } from './rpc.ts'

export type Named = AnyConnection | string

/** What this process itself answers to questions that go to all instances. A process without sockets answers `nothing`. */
export interface OwnAnswers {
  /** Sorted names of groups that have members here: see `groupNames`. */
  readonly groups: (options: GroupListOptions) => readonly string[]
  readonly connections: () => number
  /** As `packUserIds`. */
  readonly users: () => string
}

const nothing: OwnAnswers = { groups: options => groupNames([], options), connections: () => 0, users: () => '' }

/** Bytes of the hash of a user id. Among a million users, the chance that any two share a hash is about 1 in 37 million. */
const userHashBytes = 8

/**
 * Waits until the instances are told of what is stored.
 * @throws {WebsocketGroupsError} WSG_TIMEOUT instead of WSG_BACKPLANE_UNAVAILABLE, which would say that nothing was done
 */
export async function onceStored<Value> (told: Promise<Value>): Promise<Value> {
  try {
    return await told
  } catch (error) {
    if (!hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE')) throw error
    const { detail = '', done, missing } = error as WebsocketGroupsError
    const outcome = `the change is stored, but instances were not told: ${detail}`
    throw new WebsocketGroupsError('WSG_TIMEOUT', outcome, { cause: error, done, missing })
  }
}

/** Acts on connections that other instances hold, and asks all instances what they hold. */
export class RemoteCommands {
  readonly #everywhere: Everywhere
  readonly #self: string

  /**
   * `self`: the id of this process. Callers look up the connections of this process first, so an id of this process means that the
   * connection is gone.
   */
  constructor (everywhere: Everywhere, self: string) {
    this.#everywhere = everywhere
    this.#self = self
  }

  async join (connection: Named, group: string, options: JoinOptions = {}): Promise<JoinResult> {
    assertGroupName(group)
    return await this.#ask(connection, { op: 'join', group, options })
  }

  async leave (connection: Named, group: string, reason?: string): Promise<boolean> {
    assertGroupName(group)
    return await this.#ask(connection, { op: 'leave', group, reason }).catch(gone(false))
  }

  async leaveAll (connection: Named): Promise<number> {
    return await this.#ask(connection, { op: 'leaveAll' }).catch(gone(0))
  }

  async groups (connection: Named): Promise<readonly string[]> {
    return await this.#ask(connection, { op: 'groups' })
  }

  async send (connection: Named, data: Data): Promise<boolean> {
    assertData(data)
    return await this.#ask(connection, { op: 'send' }, data).catch(gone(false))
  }

  async disconnect (connection: Named, code: number, reason: string): Promise<number> {
    assertClose(code, reason)
    return await this.#ask(connection, { op: 'disconnect', code, reason }).catch(gone(0))
  }

  /** Puts the user's connections on other instances into the group. `here`: how many this process put there itself. */
  async joinUser (userId: string, group: string, options: JoinOptions = {}, here = 0): Promise<number> {
    const target = userTarget(userId)
    assertGroupName(group)
    return await this.#everywhere.act(target, { op: 'user', userId, act: { op: 'join', group, options } }, here)
  }

  /** Takes the user's connections on other instances out of the group. `here`: how many this process took out itself. */
  async leaveUser (userId: string, group: string, reason?: string, here = 0): Promise<number> {
    const target = userTarget(userId)
    assertGroupName(group)
    return await this.#everywhere.act(target, { op: 'user', userId, act: { op: 'leave', group, reason } }, here)
  }

  /** The groups that any connection of the user is in at other instances, and those in `here`. */
  async groupsOfUser (userId: string, here: readonly string[] = []): Promise<readonly string[]> {
    const groups = await this.#everywhere.all(userTarget(userId), { op: 'user', userId, act: { op: 'groups' } }, here)
    return [...new Set((groups as ReadonlyArray<readonly string[]>).flat())].sort()
  }

  /** `here`: how many this process closed itself. */
  async disconnectUser (userId: string, code: number, reason: string, here = 0): Promise<number> {
    const target = userTarget(userId)
    assertClose(code, reason)
    return await this.#everywhere.act(target, { op: 'disconnectUser', userId, code, reason }, here)
  }

  /** Tells all other instances of a block that is stored. `here`: how many connections this process closed itself. */
  async block (name: string, forMs: number, here = 0): Promise<number> {
    return await this.#everywhere.act(allInstances, { op: 'block', name, forMs }, here, true)
  }

  /** As `Registry.groupList`. */
  async groupList (options: GroupListOptions = {}, own = nothing): Promise<GroupList> {
    const { prefix = '', cursor, limit } = options
    // Before asking others: it throws if the options are wrong.
    const here = own.groups(options)
    const { answers, missing } = await this.#everywhere.gather(allInstances, { op: 'groupNames', prefix, cursor, limit }, here)
    const names = new Set([...answers.values()].flatMap(some => some as readonly string[]))
    return listOf(pageOf(names, name => name, { cursor, limit }), { missing: missing.length })
  }

  /** As `Registry.connectionCount`. */
  async connectionCount (own = nothing): Promise<number> {
    const { answers, missing } = await this.#everywhere.gather(allInstances, { op: 'connectionCount' }, own.connections())
    return complete('connectionCount', total([...answers.values()]), missing)
  }

  /** As `Registry.userCount`. */
  async userCount (own = nothing): Promise<number> {
    const { answers, missing } = await this.#everywhere.gather(allInstances, { op: 'userIds' }, own.users())
    const users = new Set<bigint>()
    for (const packed of answers.values()) {
      const hashes = Buffer.from(String(packed), 'base64')
      for (let at = 0; at + userHashBytes <= hashes.length; at += userHashBytes) users.add(hashes.readBigUInt64BE(at))
    }
    return complete('userCount', users.size, missing)
  }

  /**
   * Asks the instance that holds the connection.
   * @throws {WebsocketGroupsError} WSG_CONNECTION_GONE, and what `Everywhere.askOne` throws
   */
  async #ask<Asked extends ConnectionCommand> (connection: Named, command: Asked, data?: Data): Promise<Answers[Asked['op']]> {
    const connectionId = idOf(connection)
    const owner = connectionId === undefined ? undefined : ownerOf(connectionId)
    if (connectionId === undefined || owner === undefined) throw notNamed()
    if (owner === this.#self) throw new WebsocketGroupsError('WSG_CONNECTION_GONE', connectionId)
    const answer = await this.#everywhere.askOne(owner, { ...command, connectionId }, data)
    // The instance is gone, and its connections with it.
    if (answer === undefined) throw new WebsocketGroupsError('WSG_CONNECTION_GONE', connectionId)
    // The other instance runs this code, and answers what `ConnectionCommands` returns.
    return answer as Answers[Asked['op']]
  }
}

/** Returns `undefined` for other values that a caller without types may pass instead of a connection. */
export function idOf (connection: unknown): string | undefined {
  const id: unknown = typeof connection === 'object' && connection !== null ? (connection as { id?: unknown }).id : connection
  return typeof id === 'string' ? id : undefined
}

/**
 * Refuses a value that cannot name a connection. The id of a connection that is gone passes.
 * @throws {WebsocketGroupsError} WSG_CONNECTION_GONE
 */
export function assertNamed (connection: unknown): asserts connection is Named {
  if (idOf(connection) === undefined) throw notNamed()
}

function notNamed (): WebsocketGroupsError {
  return new WebsocketGroupsError('WSG_CONNECTION_GONE', 'neither a connection nor the id of one')
}

/** Tells a user from a connection, which has both a `userId` and an `id`. */
export function isUser (who: unknown): who is UserTarget {
  return typeof who === 'object' && who !== null && !('id' in who) && 'userId' in who
}

/** As `Registry.broadcastJson`, by the other methods of a registry or publisher. */
export async function broadcastJson (
  by: Pick<Publisher, 'broadcastToGroup' | 'broadcastToAll' | 'sendToUser'>, to: Recipients, value: unknown, options?: BroadcastOptions
): Promise<BroadcastResult> {
  const data = toJson(value)
  if (isUser(to)) return await by.sendToUser(to.userId, data, options)
  if (isEveryone(to)) return await by.broadcastToAll(data, options)
  return await by.broadcastToGroup(to, data, options)
}

function isEveryone (to: unknown): to is { readonly all: true } {
  return typeof to === 'object' && to !== null && 'all' in to && to.all === true
}

/** Turns WSG_CONNECTION_GONE into a result; for `catch`. */
export function gone<Result> (result: Result): (error: unknown) => Result {
  return error => {
    if (hasCode(error, 'WSG_CONNECTION_GONE')) return result
    throw error
  }
}

/** Returns the names of one instance that may belong to a page: see `itemsAfter`. */
export function groupNames (names: Iterable<string>, { prefix = '', ...page }: GroupListOptions): readonly string[] {
  return itemsAfter(startingWith(names, prefix), name => name, page)
}

/** Hashes of user ids, as base64: short, and enough to count each user once. */
export function packUserIds (userIds: Iterable<string>): string {
  const hashes = Array.from(userIds, userId => createHash('sha1').update(userId).digest().subarray(0, userHashBytes))
  return Buffer.concat(hashes).toString('base64')
}

function total (counts: readonly unknown[]): number {
  return counts.reduce<number>((sum, count) => sum + Number(count), 0)
}

/** @throws {WebsocketGroupsError} WSG_TIMEOUT: a plain number could not say that instances are missing */
function complete (what: string, count: number, missing: readonly string[]): number {
  if (missing.length === 0) return count
  const detail = `${what} came to ${count} without the instances that live and did not answer: ${missing.join(', ')}`
  throw new WebsocketGroupsError('WSG_TIMEOUT', detail, { done: count, missing })
}

function * startingWith (names: Iterable<string>, prefix: string): Iterable<string> {
  for (const name of names) if (name.startsWith(prefix)) yield name
}
