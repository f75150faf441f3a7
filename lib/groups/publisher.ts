import type { StreamStore, Target } from '../backplane/backplane.ts'
import { StandaloneWriter } from '../backplane/redis/standalone-writer.ts'
import { EnvelopeFactory, everyone, groupTargets, userLogTarget, userTarget } from '../delivery/envelopes.ts'
import { assertNoKey, LoggedPublish } from '../delivery/logged-publish.ts'
import { ResumeProofs } from '../delivery/resume-proofs.ts'
import { inSendSpan } from '../delivery/spans.ts'
import { WebsocketGroupsError } from '../errors.ts'
import { assertGroupName } from '../group-name.ts'
import { blockMs, blockName } from './blocklist.ts'
import { ConnectionCalls } from './connection-calls.ts'
import { DeliveryReports } from './delivery-reports.ts'
import { Everywhere } from './everywhere.ts'
import { GroupHistory } from './history.ts'
import { listOf, memberPage, presencePage } from './lists.ts'
import { PublisherCommands } from './publisher-commands.ts'
import { broadcastJson, onceStored, type RemoteCommands } from './remote-commands.ts'
import { InstanceRpc, type CommandHandler } from './rpc.ts'
import { StreamCommands } from './stream-commands.ts'
import { assertStream } from '../streams/options.ts'
import { Streams } from '../streams/streams.ts'
import { checkCall } from '../options/calls.ts'
import { GroupLogs } from '../options/group-logs.ts'
import { answerTimeoutMs, type ResolvedPublisherOptions } from '../options/resolve.ts'
import type {
  BlockOptions, BlockTarget, BroadcastOptions, BroadcastResult, Data, History, HistoryOptions, Member, MembersOptions, PageOptions,
  PresenceEntry, Publisher, Recipients, Stream, StreamOptions, StreamReading, Tracing
} from '../types.ts'

/** No client resumes from what a publisher reads, so the positions need no proofs. */
const noProofs = { proofs: async () => new ResumeProofs([]) }

/** What `createPublisher` returns: the calls of a process without sockets, which asks the instances about their connections. */
export class GroupPublisher extends ConnectionCalls implements Publisher {
  readonly #envelopes: EnvelopeFactory
  readonly #tracing: Tracing | undefined
  readonly #backplane: StandaloneWriter
  readonly #logged: LoggedPublish
  readonly #rpc: InstanceRpc
  readonly #commands: RemoteCommands
  readonly #reports: DeliveryReports
  readonly #history: GroupHistory
  readonly #streams: Streams
  readonly #streamCommands: StreamCommands

  constructor (options: ResolvedPublisherOptions) {
    super(() => this.#commands)
    this.#tracing = options.tracing
    this.#envelopes = new EnvelopeFactory(() => undefined, undefined, options.tracing)
    this.#backplane = new StandaloneWriter(options)
    const logs = new GroupLogs(options)
    this.#logged = new LoggedPublish(this.#backplane, logs)
    const { origin } = this.#envelopes
    const listen = async (): Promise<void> => await this.#backplane.listen(origin, envelope => this.#rpc.receive(envelope))
    const { streams } = this.#backplane
    const write: StreamStore['write'] = async write => {
      // Subscribe before writing: whoever stops the stream asks this process.
      await listen()
      return await streams.write(write)
    }
    this.#streams = new Streams({ streams: { ...streams, write } }, this.#envelopes)
    const serve: CommandHandler = async command => {
      if (command.op === 'stopStream') return this.#streams.stopHere(command.stream)
      throw new Error('a publisher holds no connections')
    }
    this.#rpc = new InstanceRpc({
      publish: async (targets, envelope) => {
        // Subscribe before asking: the answers come by a channel of this process.
        await listen()
        return await this.#backplane.publish(targets, envelope)
      }
    }, this.#envelopes, serve, answerTimeoutMs(options), { repliesLost: 0 })
    const everywhere = new Everywhere(this.#backplane, this.#rpc, origin)
    this.#commands = new PublisherCommands(everywhere, origin, this.#backplane, logs)
    this.#streamCommands = new StreamCommands(this.#streams, everywhere, origin)
    this.#reports = new DeliveryReports(this.#rpc, this.#envelopes)
    this.#history = new GroupHistory(this.#backplane, noProofs)
  }

  async broadcastToGroup (group: string | readonly string[], data: Data, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    checkCall('broadcastToGroup', options)
    const targets = groupTargets(group)
    return await inSendSpan(this.#tracing, targets, data, () => this.#toLogs(targets, targets, data, options))
  }

  async broadcastJson (to: Recipients, value: unknown, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await broadcastJson(this, to, value, options)
  }

  async broadcastToAll (data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    checkCall('broadcastToAll', options)
    assertNoKey(options)
    return await inSendSpan(this.#tracing, everyone, data, () => this.#broadcast(everyone, data, options))
  }

  async sendToUser (userId: string, data: Data, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    checkCall('sendToUser', options)
    const [targets, log] = [[userTarget(userId)], userLogTarget(userId)]
    return await inSendSpan(this.#tracing, targets, data, async () => {
      if (log !== undefined) return await this.#toLogs([log], targets, data, options)
      assertNoKey(options)
      return await this.#broadcast(targets, data, options)
    })
  }

  async block (target: BlockTarget, options: BlockOptions): Promise<number> {
    return await this.#block(target, blockMs(options))
  }

  async unblock (target: BlockTarget): Promise<void> {
    await this.#block(target, 0)
  }

  async groupCount (group: string): Promise<number> {
    assertGroupName(group)
    return await this.#backplane.count(group)
  }

  async members (group: string, options: MembersOptions = {}): Promise<readonly Member[] & { readonly cursor?: string }> {
    assertGroupName(group)
    checkCall('members', options)
    return listOf(memberPage(await this.#backplane.members(group), options), {})
  }

  async presence (group: string, options: PageOptions = {}): Promise<readonly PresenceEntry[] & { readonly cursor?: string }> {
    assertGroupName(group)
    checkCall('presence', options)
    return listOf(presencePage(await this.#backplane.members(group), options), {})
  }

  async history (group: string, options?: HistoryOptions): Promise<History> {
    return await this.#history.read(group, options)
  }

  stream (group: string, id: string, options?: StreamOptions): Stream {
    return this.#streams.begin(group, id, options)
  }

  async stopStream (group: string, id: string): Promise<boolean> {
    assertStream(group, id)
    return await this.#streamCommands.stop({ group, id })
  }

  async readStream (group: string, id: string): Promise<StreamReading | undefined> {
    assertStream(group, id)
    return await this.#streams.readAll({ group, id })
  }

  async close (): Promise<void> {
    await this.#backplane.close(async () => {
      await this.#streams.close()
      this.#rpc.close()
    })
  }

  async [Symbol.asyncDispose] (): Promise<void> {
    await this.close()
  }

  /** Appends to the logs, unless there are none, or the message is volatile or local. `recipients`: the targets of the message. */
  async #toLogs (
    logs: readonly Target[], recipients: readonly Target[], data: Data, options: BroadcastOptions
  ): Promise<BroadcastResult> {
    if (options.local === true || !this.#logged.usesLog(logs, options)) return await this.#broadcast(recipients, data, options)
    const envelope = this.#envelopes.message(logs, data, options)
    const result = { localRecipients: 0, ...await this.#logged.append(logs, envelope, options) }
    return await this.#reports.complete(result, recipients, options)
  }

  async #block (target: BlockTarget, forMs: number): Promise<number> {
    const name = blockName(target)
    if (!await this.#backplane.block(name, forMs)) throw new WebsocketGroupsError('WSG_BLOCKLIST_FULL')
    return await onceStored(this.#commands.block(name, forMs))
  }

  async #broadcast (targets: readonly Target[], data: Data, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    const envelope = this.#envelopes.message(targets, data, options)
    // This process has no connections that could get a local message.
    const scope = options.local === true ? 'local' : 'cluster'
    const nobody = scope === 'local' || targets.length === 0
    if (nobody) this.#backplane.assertOpen()
    const instances = nobody ? 0 : await this.#backplane.publish(targets, envelope)
    return await this.#reports.complete({ scope, localRecipients: 0, instances }, targets, options)
  }
}
