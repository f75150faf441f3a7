import { WebsocketGroupsError } from './errors.ts'
import type { Broadcaster } from './delivery/broadcaster.ts'
import { everyone, groupTargets, userTarget } from './delivery/envelopes.ts'
import { blockMs } from './groups/blocklist.ts'
import { ConnectionCalls } from './groups/connection-calls.ts'
import type { GroupHistory } from './groups/history.ts'
import type { GroupReads } from './groups/reads.ts'
import type { ConnectionCommands } from './groups/remote.ts'
import { broadcastJson } from './groups/remote-commands.ts'
import type { Hub } from './hub/hub.ts'
import { checkCall } from './options/calls.ts'
import { aFunction, check, property } from './options/rules.ts'
import { assertStream } from './streams/options.ts'
import type { Streams } from './streams/streams.ts'
import type {
  BlockOptions, BlockTarget, BroadcastOptions, BroadcastResult, Connection, Data, Description, Health, History, HistoryOptions, Instances,
  MemberList, MembersOptions, MetricsSnapshot, PageOptions, PresenceList, ReadOptions, Recipients, Registry, Stats,
  Stream, StreamOptions, StreamReading
} from './types.ts'

/** The parts of an instance that the public methods call. */
interface RegistryParts {
  readonly instanceId: string
  readonly hub: Hub
  readonly broadcaster: Broadcaster
  readonly reads: GroupReads
  readonly history: GroupHistory
  readonly streams: Streams
  readonly commands: ConnectionCommands
  /** Calls that reach beyond this instance work only in the phase `open`. */
  readonly phase: () => 'booting' | 'open' | 'closed'
  readonly reports: Pick<Registry, 'health' | 'stats' | 'metrics' | 'describe'>
  readonly drain: (overMs: number) => Promise<void>
}

/** What applications get as `app.registry`: the public methods and nothing else. */
export class GroupRegistry extends ConnectionCalls implements Registry {
  readonly #parts: RegistryParts
  readonly #instances: Instances

  constructor (parts: RegistryParts) {
    super(() => this.#open.commands)
    this.#parts = parts
    this.#instances = {
      on: (name, handler) => parts.commands.instances.on(name, handler),
      emit: async (name, payload) => await this.#open.commands.instances.emit(name, payload),
      ask: async (name, payload, options) => await this.#open.commands.instances.ask(name, payload, options)
    }
  }

  get instanceId (): string {
    return this.#parts.instanceId
  }

  get instances (): Instances {
    return this.#instances
  }

  async broadcastToGroup (group: string | readonly string[], data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    checkCall('broadcastToGroup', options)
    const { broadcaster, commands } = this.#open
    // Copy the list before the message is sent: the caller may reuse its list of groups.
    const targets = options?.report === true ? groupTargets(group) : []
    return await commands.reports.complete(await broadcaster.toGroups(group, data, options), targets, options)
  }

  async broadcastJson (to: Recipients, value: unknown, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await broadcastJson(this, to, value, options)
  }

  async broadcastToAll (data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    checkCall('broadcastToAll', options)
    const { broadcaster, commands } = this.#open
    return await commands.reports.complete(await broadcaster.toAll(data, options), everyone, options)
  }

  async sendToUser (userId: string, data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    checkCall('sendToUser', options)
    const { broadcaster, commands } = this.#open
    return await commands.reports.complete(await broadcaster.toUser(userId, data, options), [userTarget(userId)], options)
  }

  async block (target: BlockTarget, options: BlockOptions): Promise<number> {
    const forMs = blockMs(options)
    return await this.#open.commands.block(target, forMs)
  }

  async unblock (target: BlockTarget): Promise<void> {
    await this.#open.commands.block(target, 0)
  }

  get (connectionId: string): Connection | undefined {
    return this.#parts.hub.connections.get(connectionId)
  }

  all (): Connection[] {
    return [...this.#parts.hub.clients()]
  }

  filter (predicate: (connection: Connection) => boolean): Connection[] {
    check('filter: predicate', predicate, aFunction)
    return this.all().filter(predicate)
  }

  count (): number {
    return this.#parts.hub.clientCount
  }

  async groupCount (group: string, options?: ReadOptions): Promise<number> {
    checkCall('groupCount', options)
    return await this.#open.reads.count(group, options)
  }

  async presence (group: string, options?: ReadOptions & PageOptions): Promise<PresenceList> {
    checkCall('presence', options)
    return await this.#open.reads.presence(group, options)
  }

  async members (group: string, options?: ReadOptions & MembersOptions): Promise<MemberList> {
    checkCall('members', options)
    return await this.#open.reads.members(group, options)
  }

  async history (group: string, options?: HistoryOptions): Promise<History> {
    return await this.#open.history.read(group, options)
  }

  stream (group: string, id: string, options?: StreamOptions): Stream {
    return this.#open.streams.begin(group, id, options)
  }

  async stopStream (group: string, id: string): Promise<boolean> {
    assertStream(group, id)
    return await this.#open.commands.streams.stop({ group, id })
  }

  async readStream (group: string, id: string): Promise<StreamReading | undefined> {
    assertStream(group, id)
    return await this.#open.streams.readAll({ group, id })
  }

  describe (): Description {
    return this.#parts.reports.describe()
  }

  async drain (options: { readonly overMs: number }): Promise<void> {
    // A caller without TypeScript may leave the options out.
    await this.#parts.drain(property(options, 'overMs') as number)
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
