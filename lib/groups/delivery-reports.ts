import type { Target } from '../backplane/backplane.ts'
import { allInstances, type EnvelopeFactory } from '../delivery/envelopes.ts'
import { isOutageOrClosed } from '../errors.ts'
import type { Exclusive } from '../hub/exclusion.ts'
import type { BroadcastOptions, BroadcastResult, DeliveryReport } from '../types.ts'
import type { Answers, InstanceRpc } from './rpc.ts'

/** How long instances may take to report (milliseconds): the caller of the broadcast waits for them. */
const reportMs = 1_000

type Reach = Answers['reach']

const nobody: Reach = { recipients: 0, slow: 0 }

/** Asks the instances that got a broadcast how many recipients they have, and how many of these are slow. */
export class DeliveryReports {
  readonly #rpc: Pick<InstanceRpc, 'askAll'>
  readonly #envelopes: Pick<EnvelopeFactory, 'exclusive'>
  /** Counts the recipients of this process. */
  readonly here: (targets: readonly Target[], exclusive: Exclusive) => Reach

  /** `here` is left out where the process has no sockets. */
  constructor (
    rpc: Pick<InstanceRpc, 'askAll'>, envelopes: Pick<EnvelopeFactory, 'exclusive'>, here: DeliveryReports['here'] = () => nobody
  ) {
    this.#rpc = rpc
    this.#envelopes = envelopes
    this.here = here
  }

  /** The result of a broadcast, with a report if the options ask for one. An outage makes the report incomplete, and rejects nothing. */
  async complete (result: BroadcastResult, targets: readonly Target[], options: BroadcastOptions = {}): Promise<BroadcastResult> {
    if (options.report !== true) return result
    return { ...result, report: await this.#ask(targets, this.#envelopes.exclusive(targets, options), options.local === true) }
  }

  async #ask (targets: readonly Target[], exclusive: Exclusive, local: boolean): Promise<DeliveryReport> {
    const [target, ...more] = targets
    if (local || target === undefined) return { ...this.here(targets, exclusive), missing: 0 }
    // The request follows the message on the same channel. A message to several groups has several channels, so all instances are asked.
    const asked = more.length === 0 ? target : allInstances
    try {
      const { answers, missing } = await this.#rpc.askAll(asked, { op: 'reach', targets, ...exclusive }, reportMs)
      const reaches = answers as readonly Reach[]
      const sum = (field: keyof Reach): number => reaches.reduce((total, reach) => total + reach[field], 0)
      return { recipients: sum('recipients'), slow: sum('slow'), missing }
    } catch (error) {
      if (!isOutageOrClosed(error)) throw error
      // Nobody knows how many other instances there are.
      return { ...this.here(targets, exclusive), missing: 1 }
    }
  }
}
