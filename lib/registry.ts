import { assertClose } from './connection/close.ts'
import { WebsocketGroupsError } from './errors.ts'
import type { Broadcaster } from './delivery/broadcaster.ts'
import { everyone, groupTargets, userTarget } from './delivery/envelopes.ts'
import { assertBlockMs } from './groups/blocklist.ts'
import type { GroupHistory } from './groups/history.ts'
import type { GroupReads } from './groups/reads.ts'
import type { ConnectionCommands } from './groups/remote.ts'
import { broadcastJson, isUser } from './groups/remote-commands.ts'
import type { Hub } from './hub/hub.ts'
import type { Streams } from './streams/streams.ts'
import { assertGroupName } from './group-name.ts'
import { CloseCode } from './protocol/close-codes.ts'
import type {
  AnyConnection, BlockOptions, BlockTarget, BroadcastOptions, BroadcastResult, CloseOptions, Connection, Data, Description, GroupList,
  GroupListOptions, Health, History, HistoryOptions, Instances, JoinOptions, JoinResult, LeaveOptions, MemberList, MembersOptions,
  MetricsSnapshot, PageOptions, PresenceList, ReadOptions, Recipients, Registry, Stats,
  Stream, StreamOptions, StreamReading, UserTarget
} from './types.ts'

/** The parts of an instance that the public methods call. */
export interface RegistryParts {
  readonly instanceId: string
  readonly hub: Hub
  readonly broadcaster: Broadcaster
  readonly reads: GroupReads
  readonly history: GroupHistory
  readonly streams: Streams
  readonly commands: ConnectionCommands
  /** Where the application is: what reads or changes something beyond this instance works in between only. */
  readonly phase: () => 'booting' | 'open' | 'closed'
  readonly reports: Pick<Registry, 'health' | 'stats' | 'metrics' | 'describe'>
  readonly drain: (overMs: number) => Promise<void>
}

/** What applications get as `app.registry`: the public methods and nothing else. */
export class GroupRegistry implements Registry {
  readonly #parts: RegistryParts

  constructor (parts: RegistryParts) {
    this.#parts = parts
  }

  get instanceId (): string {
    return this.#parts.instanceId
  }

  get instances (): Instances {
    return this.#parts.commands.instances
  }

  join (connection: AnyConnection | string, group: string, options?: JoinOptions): Promise<JoinResult>
  join (user: UserTarget, group: string, options?: JoinOptions): Promise<number>
  async join (who: AnyConnection | string | UserTarget, group: string, options?: JoinOptions): Promise<JoinResult | number> {
    if (isUser(who)) return await this.#open.commands.joinUser(who.userId, group, options)
    return await this.#open.commands.join(who, group, options)
  }

  leave (connection: AnyConnection | string, group: string, options?: LeaveOptions): Promise<boolean>
  leave (user: UserTarget, group: string, options?: LeaveOptions): Promise<number>
  async leave (who: AnyConnection | string | UserTarget, group: string, { reason }: LeaveOptions = {}): Promise<boolean | number> {
    if (reason !== undefined) assertClose(CloseCode.Normal, reason)
    if (isUser(who)) return await this.#open.commands.leaveUser(who.userId, group, reason)
    return await this.#open.commands.leave(who, group, reason)
  }

  async leaveAll (connection: AnyConnection | string): Promise<number> {
    return await this.#open.commands.leaveAll(connection)
  }

  async groups (who: AnyConnection | string | UserTarget): Promise<readonly string[]> {
    if (isUser(who)) return await this.#open.commands.groupsOfUser(who.userId)
    return await this.#open.commands.groups(who)
  }

  async broadcastToGroup (group: string | readonly string[], data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    const { broadcaster, commands } = this.#open
    return await commands.reports.complete(await broadcaster.toGroups(group, data, options), () => groupTargets(group), options)
  }

  async broadcastJson (to: Recipients, value: unknown, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await broadcastJson(this, to, value, options)
  }

  async broadcastToAll (data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    const { broadcaster, commands } = this.#open
    return await commands.reports.complete(await broadcaster.toAll(data, options), () => everyone, options)
  }

  async sendToUser (userId: string, data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    const { broadcaster, commands } = this.#open
    return await commands.reports.complete(await broadcaster.toUser(userId, data, options), () => [userTarget(userId)], options)
  }

  async sendTo (connectionId: string, data: Data): Promise<boolean> {
    return await this.#open.commands.send(connectionId, data)
  }

  async disconnect (target: AnyConnection | string | { readonly userId: string }, options: CloseOptions = {}): Promise<number> {
    const { code = CloseCode.Normal, reason = '' } = options
    if (isUser(target)) return await this.#open.commands.disconnectUser(target.userId, code, reason)
    return await this.#open.commands.disconnect(target, code, reason)
  }

  async block (target: BlockTarget, { forMs }: BlockOptions): Promise<number> {
    assertBlockMs(forMs)
    return await this.#open.commands.block(target, forMs)
  }

  async unblock (target: BlockTarget): Promise<void> {
    await this.#open.commands.block(target, 0)
  }

  get (connectionId: string): Connection | undefined {
    return this.#parts.hub.connections.get(connectionId)
  }

  all (): Connection[] {
    return [...this.#parts.hub.connections.values()]
  }

  filter (predicate: (connection: Connection) => boolean): Connection[] {
    return this.all().filter(predicate)
  }

  count (): number {
    return this.#parts.hub.connections.size
  }

  async groupCount (group: string, options?: ReadOptions): Promise<number> {
    return await this.#open.reads.count(group, options)
  }

  async presence (group: string, options?: ReadOptions & PageOptions): Promise<PresenceList> {
    return await this.#open.reads.presence(group, options)
  }

  async members (group: string, options?: ReadOptions & MembersOptions): Promise<MemberList> {
    return await this.#open.reads.members(group, options)
  }

  async groupList (options?: GroupListOptions): Promise<GroupList> {
    return await this.#open.commands.groupList(options)
  }

  async connectionCount (): Promise<number> {
    return await this.#open.commands.connectionCount()
  }

  async userCount (): Promise<number> {
    return await this.#open.commands.userCount()
  }

  async history (group: string, options?: HistoryOptions): Promise<History> {
    return await this.#open.history.read(group, options)
  }

  stream (group: string, id: string, options?: StreamOptions): Stream {
    return this.#open.streams.begin(group, id, options)
  }

  async stopStream (group: string, id: string): Promise<boolean> {
    assertGroupName(group)
    return await this.#open.commands.streams.stop({ group, id })
  }

  async readStream (group: string, id: string): Promise<StreamReading | undefined> {
    assertGroupName(group)
    return await this.#open.streams.readAll({ group, id })
  }

  describe (): Description {
    return this.#parts.reports.describe()
  }

  async drain ({ overMs }: { readonly overMs: number }): Promise<void> {
    await this.#parts.drain(overMs)
  }

  health (): Health {
    return this.#parts.reports.health()
  }

  stats (): Stats {
    return this.#parts.reports.stats()
  }

  metrics (): MetricsSnapshot {
    return this.#parts.reports.metrics()
  }

  /** @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE before the application is ready, WSG_CLOSED after it was closed */
  get #open (): RegistryParts {
    const phase = this.#parts.phase()
    if (phase === 'closed') throw new WebsocketGroupsError('WSG_CLOSED')
    if (phase === 'booting') throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'wait for app.ready(): the plugin is not started')
    return this.#parts
  }
}
