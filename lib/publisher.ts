import type { Target } from './backplane/backplane.ts'
import { StandaloneWriter } from './backplane/redis/standalone-writer.ts'
import { EnvelopeFactory, everyone, groupTargets, userTarget } from './delivery/envelopes.ts'
import { LoggedPublish } from './delivery/logged-publish.ts'
import { GroupLogs } from './options/group-logs.ts'
import type { ResolvedPublisherOptions } from './options/resolve.ts'
import type { BroadcastOptions, BroadcastResult, Data, Member, Publisher } from './types.ts'

/** Broadcasts from a process without sockets. */
export class GroupPublisher implements Publisher {
  readonly #envelopes = new EnvelopeFactory()
  readonly #backplane: StandaloneWriter
  readonly #logged: LoggedPublish

  constructor (options: ResolvedPublisherOptions) {
    this.#backplane = new StandaloneWriter(options)
    this.#logged = new LoggedPublish(this.#backplane, new GroupLogs(options))
  }

  async broadcastToGroup (group: string | readonly string[], data: Data, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    const targets = groupTargets(group)
    if (!this.#logged.usesLog(targets, options)) return await this.#broadcast(targets, data, options)
    const envelope = this.#envelopes.message(targets, data, options)
    return { localRecipients: 0, ...await this.#logged.append(targets, envelope, options) }
  }

  async broadcastToAll (data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#broadcast(everyone, data, options)
  }

  async sendToUser (userId: string, data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await this.#broadcast([userTarget(userId)], data, options)
  }

  async groupCount (group: string): Promise<number> {
    return await this.#backplane.count(group)
  }

  async members (group: string): Promise<readonly Member[]> {
    return await this.#backplane.members(group)
  }

  async close (): Promise<void> {
    await this.#backplane.close()
  }

  async [Symbol.asyncDispose] (): Promise<void> {
    await this.close()
  }

  async #broadcast (targets: readonly Target[], data: Data, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    const envelope = this.#envelopes.message(targets, data, options)
    const instances = targets.length === 0 ? 0 : await this.#backplane.publish(targets, envelope)
    return { scope: 'cluster', localRecipients: 0, instances }
  }
}
