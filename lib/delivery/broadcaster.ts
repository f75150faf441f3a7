import { assertNoKey, type LoggedPublish } from './logged-publish.ts'
import type { Backplane, Envelope, Target } from '../backplane/backplane.ts'
import { hasCode, isOutage } from '../errors.ts'
import type { Hub } from '../hub/hub.ts'
import type { EchoFilter } from './echo.ts'
import type { Metrics } from '../metrics.ts'
import { announce } from '../metrics/channels.ts'
import type { FlushScheduler } from '../connection/outbound/flush-scheduler.ts'
import { everyone, groupTargets, userLogTarget, userTarget, type EnvelopeFactory } from './envelopes.ts'
import { inSendSpan } from './spans.ts'
import type { OutagePolicy } from '../options/types.ts'
import type { BroadcastOptions, BroadcastResult, Data } from '../types.ts'

/** Sends messages to groups, users and everyone, and decides what happens to them while the backplane is out. */
export class Broadcaster {
  readonly #hub: Hub
  readonly #backplane: Backplane
  readonly #logged: LoggedPublish
  readonly #envelopes: EnvelopeFactory
  readonly #echoes: EchoFilter
  readonly #policy: OutagePolicy['broadcast']
  readonly #scheduler: Pick<FlushScheduler, 'slow'>
  readonly #metrics: Metrics

  constructor (
    hub: Hub, backplane: Backplane, logged: LoggedPublish, envelopes: EnvelopeFactory, echoes: EchoFilter,
    policy: OutagePolicy['broadcast'], scheduler: Pick<FlushScheduler, 'slow'>, metrics: Metrics
  ) {
    this.#hub = hub
    this.#backplane = backplane
    this.#logged = logged
    this.#envelopes = envelopes
    this.#echoes = echoes
    this.#policy = policy
    this.#scheduler = scheduler
    this.#metrics = metrics
  }

  async toGroups (group: string | readonly string[], data: Data, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    const targets = groupTargets(group)
    return await inSendSpan(this.#metrics.tracing, targets, data, () => this.#toGroups(targets, data, options))
  }

  async #toGroups (targets: readonly Target[], data: Data, options: BroadcastOptions): Promise<BroadcastResult> {
    if (options.local === true) return this.#locally(targets, data, options)
    if (!this.#logged.usesLog(targets, options)) return await this.#broadcast(targets, data, options)
    return await this.#append(targets, targets, data, options)
  }

  async toUser (userId: string, data: Data, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    const [targets, log] = [[userTarget(userId)], userLogTarget(userId)]
    return await inSendSpan(this.#metrics.tracing, targets, data, async () => {
      if (options.local === true) return this.#locally(targets, data, options)
      const logged = log !== undefined && this.#logged.usesLog([log], options)
      if (logged) return await this.#append([log], targets, data, options)
      assertNoKey(options)
      return await this.#broadcast(targets, data, options)
    })
  }

  async toAll (data: Data, options?: BroadcastOptions): Promise<BroadcastResult> {
    return await inSendSpan(this.#metrics.tracing, everyone, data, async () => {
      if (options?.local === true) return this.#locally(everyone, data, options)
      assertNoKey(options)
      return await this.#broadcast(everyone, data, options)
    })
  }

  /** Stores the message in the logs. `recipients`: the targets whose connections here are counted. */
  async #append (
    logs: readonly Target[], recipients: readonly Target[], data: Data, options: BroadcastOptions
  ): Promise<BroadcastResult> {
    const envelope = this.#envelopes.message(logs, data, options)
    const audience = this.#audience(recipients, envelope)
    this.#published(recipients, envelope)
    return { ...await this.#logged.append(logs, envelope, options), ...audience }
  }

  async #broadcast (targets: readonly Target[], data: Data, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    const envelope = this.#envelopes.message(targets, data, options)
    const audience = this.#audience(targets, envelope)
    this.#published(targets, envelope)
    if (targets.length === 0) return { scope: 'cluster', ...audience, instances: 0 }
    this.#echoes.publishing(envelope)
    try {
      const wasInterrupted = this.#isInterrupted(targets)
      const instances = await this.#backplane.publish(targets, envelope)
      // The other instances got the message. Members here may not have, while this instance's own subscription is being repaired.
      if (wasInterrupted || this.#isInterrupted(targets)) this.#echoes.deliverHere(envelope, targets, true)
      return { scope: 'cluster', ...audience, ...(instances === undefined ? {} : { instances }) }
    } catch (error) {
      return { ...this.#withoutBackplane(targets, envelope, error), ...audience }
    } finally {
      this.#echoes.published(envelope)
    }
  }

  #locally (targets: readonly Target[], data: Data, options: BroadcastOptions): BroadcastResult {
    assertNoKey(options)
    const envelope = this.#envelopes.message(targets, data, options)
    const audience = this.#audience(targets, envelope)
    this.#metrics.messagesPublished++
    this.#metrics.framesSent += this.#hub.deliverExcept(envelope, targets, [])
    return { scope: 'local', ...audience, instances: 1 }
  }

  /** Counts the recipients of the message on this instance; called before the message is sent. */
  #audience (targets: readonly Target[], envelope: Envelope): Pick<BroadcastResult, 'localRecipients' | 'slowRecipients'> {
    const localRecipients = this.#hub.countRecipients(targets, envelope)
    const slowRecipients = this.#scheduler.slow.size === 0 ? 0 : this.#hub.countSlow(targets, envelope)
    return { localRecipients, ...(slowRecipients === 0 ? {} : { slowRecipients }) }
  }

  #published (targets: readonly Target[], { payload }: Envelope): void {
    this.#metrics.messagesPublished++
    announce('publish', () => {
      const [kind, names] = [targets[0]?.kind ?? 'group', targets.map(({ name }) => name)]
      return { instanceId: this.#envelopes.origin, kind, names, bytes: payload.length }
    })
  }

  #isInterrupted (targets: readonly Target[]): boolean {
    return targets.some(target => this.#backplane.interrupted(target))
  }

  #withoutBackplane (targets: readonly Target[], envelope: Envelope, error: unknown): { scope: 'local' | 'none' } {
    if (this.#policy === 'reject' || !isOutage(error)) throw error
    if (this.#policy === 'drop') {
      this.#metrics.publishesDropped++
      return { scope: 'none' }
    }
    this.#metrics.publishedLocally++
    this.#echoes.deliverHere(envelope, targets, hasCode(error, 'WSG_TIMEOUT'))
    return { scope: 'local' }
  }
}
