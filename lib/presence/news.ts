import { setTimeout as sleep } from 'node:timers/promises'
import type { Backplane, Target } from '../backplane/backplane.ts'
import { allInstances, type EnvelopeFactory } from '../delivery/envelopes.ts'
import { Spaced } from './counts.ts'
import type { Absence, MemberEvent, PresenceEvent } from './events.ts'

/** Takes what the other instances could not be told, so that at least the clients here hear of it. */
interface NewsHost {
  apply (group: string, event: MemberEvent): void
  /** Members of the group came or went without events. */
  changed (group: string): void
  /** As `changed`, in any group. */
  resync (): void
}

/** Stands for all groups, in place of a name. */
const anyGroup = ''

/** Members who are handed over within this time (milliseconds) share messages, with at most this many members in each. */
const handoverMs = 10
const maxHandover = 200

/**
 * Tells all instances, this one included, who comes and who goes. After an event that an instance may not have heard, `changed` is sent
 * until that is published: it makes instances read the group again.
 */
export class PresenceNews {
  readonly #backplane: Pick<Backplane, 'publish' | 'state'>
  readonly #envelopes: EnvelopeFactory
  readonly #host: NewsHost
  readonly #stale = new Spaced(group => { void this.#publishStale(group) })
  #letGo: Absence[] = []
  #handingOver: Promise<void> | undefined
  #closed = false

  constructor (backplane: Pick<Backplane, 'publish' | 'state'>, envelopes: EnvelopeFactory, host: NewsHost) {
    this.#backplane = backplane
    this.#envelopes = envelopes
    this.#host = host
  }

  /** Resolves when the event is published, or failed to be; never rejects. */
  async announce (group: string, event: MemberEvent): Promise<void> {
    try {
      await this.#publish({ kind: 'group', name: group }, event)
    } catch {
      this.#host.apply(group, event)
      this.#failed(group)
    }
  }

  /** Members of the group came or went without events: instances with clients to tell read the group anew, at most once a second. */
  changed (group: string): void {
    if (!this.#closed) this.#stale.want(group)
  }

  /** As `changed`, of any group. */
  resync (): void {
    this.changed(anyGroup)
  }

  /**
   * Tells all instances that the member is away because this instance shuts down: the client may come back to an instance that has nobody
   * in the group and so gets no `away`. Resolves when all were told, or could not be: then lists lack the member until it is back. Never
   * rejects.
   */
  async handOver (group: string, member: Absence[1]): Promise<void> {
    this.#letGo.push([group, member])
    this.#handingOver ??= sleep(handoverMs).then(async () => {
      const all = this.#letGo
      this.#letGo = []
      this.#handingOver = undefined
      for (let at = 0; at < all.length; at += maxHandover) {
        await this.#publish(allInstances, { event: 'handover', away: all.slice(at, at + maxHandover) }).catch(() => {})
      }
    })
    await this.#handingOver
  }

  close (): void {
    this.#closed = true
    this.#stale.close()
  }

  async #publishStale (group: string): Promise<void> {
    try {
      if (group === anyGroup) await this.#publish(allInstances, { event: 'resync' })
      else await this.#publish({ kind: 'group', name: group }, { event: 'changed' })
    } catch {
      if (group === anyGroup) this.#host.resync()
      else this.#host.changed(group)
      this.#failed(group)
    }
  }

  async #publish (target: Target, event: PresenceEvent): Promise<void> {
    await this.#backplane.publish([target], this.#envelopes.command('presence', target, JSON.stringify(event)))
  }

  /** Tells of a change instead, unless the backplane is down: when it is back, everything is read anew. */
  #failed (group: string): void {
    if (this.#backplane.state !== 'down') this.changed(group)
  }
}
