import type { Broadcaster } from './delivery/broadcaster.ts'
import { assertBlockMs } from './groups/blocklist.ts'
import type { GroupHistory } from './groups/history.ts'
import type { GroupReads } from './groups/reads.ts'
import type { ConnectionCommands } from './groups/remote.ts'
import type { Hub } from './hub/hub.ts'
import { CloseCode } from './protocol/close-codes.ts'
import type {
  AnyConnection, BlockOptions, BlockTarget, BroadcastOptions, BroadcastResult, CloseOptions, Connection, Data, Description, Health, History,
  HistoryOptions, JoinOptions, JoinResult, MemberList, MetricsSnapshot, PageOptions, PresenceList, ReadOptions, Registry, Stats
} from './types.ts'

/** The parts of an instance that the public methods call. */
export interface RegistryParts {
  readonly instanceId: string
  readonly hub: Hub
  readonly broadcaster: Broadcaster
  readonly reads: GroupReads
  readonly history: GroupHistory
  readonly commands: ConnectionCommands
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

  async join (connection: AnyConnection | string, group: string, options?: JoinOptions): Promise<JoinResult> {
    return await this.#parts.commands.join(connection, group, options)
  }

  async leave (connection: AnyConnection | string, group: string): Promise<boolean> {
    return await this.#parts.commands.leave(connection, group)
  }

  async leaveAll (connection: AnyConnection | string): Promise<number> {
    return await this.#parts.commands.leaveAll(connection)
  }

  async groups (connection: AnyConnection | string): Promise<readonly string[]> {
    return await this.#parts.commands.groups(connection)
  }

  async broadcastToGroup (group: string | readonly string[], data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#parts.broadcaster.toGroups(group, data, options)
  }

  async broadcastToAll (data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#parts.broadcaster.toAll(data, options)
  }

  async sendToUser (userId: string, data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#parts.broadcaster.toUser(userId, data, options)
  }

  async sendTo (connectionId: string, data: Data): Promise<boolean> {
    return await this.#parts.commands.send(connectionId, data)
  }

  async disconnect (target: AnyConnection | string | { readonly userId: string }, options: CloseOptions = {}): Promise<number> {
    const { code = CloseCode.Normal, reason = '' } = options
    if (typeof target === 'object' && !('id' in target)) return await this.#parts.commands.disconnectUser(target.userId, code, reason)
    return await this.#parts.commands.disconnect(target, code, reason)
  }

  async block (target: BlockTarget, { forMs }: BlockOptions): Promise<number> {
    assertBlockMs(forMs)
    return await this.#parts.commands.block(target, forMs)
  }

  async unblock (target: BlockTarget): Promise<void> {
    await this.#parts.commands.block(target, 0)
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
    return await this.#parts.reads.count(group, options)
  }

  async presence (group: string, options?: ReadOptions & PageOptions): Promise<PresenceList> {
    return await this.#parts.reads.presence(group, options)
  }

  async members (group: string, options?: ReadOptions): Promise<MemberList> {
    return await this.#parts.reads.members(group, options)
  }

  async history (group: string, options?: HistoryOptions): Promise<History> {
    return await this.#parts.history.read(group, options)
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
}
