import type { Backplane, Envelope, Target } from '../backplane/backplane.ts'
import { WebsocketGroupsError } from '../errors.ts'
import type { GroupLogs } from '../options/group-logs.ts'
import type { Histogram } from '../metrics/histogram.ts'
import { formatPosition } from '../backplane/position.ts'
import type { BroadcastOptions, BroadcastResult } from '../types.ts'

const maxKeyBytes = 255

type LoggedResult = Omit<BroadcastResult, 'localRecipients' | 'slowRecipients'>

/** Broadcasts to groups of which at least one has a log. */
export class LoggedPublish {
  readonly #backplane: Pick<Backplane, 'append'>
  readonly #logs: GroupLogs
  readonly #lengths: Histogram | undefined

  /** `lengths` records how many messages the logs hold after each append. */
  constructor (backplane: Pick<Backplane, 'append'>, logs: GroupLogs, lengths?: Histogram) {
    this.#backplane = backplane
    this.#logs = logs
    this.#lengths = lengths
  }

  /** Whether a broadcast with these options goes through a log. @throws {WebsocketGroupsError} WSG_IDEMPOTENCY_INVALID */
  usesLog (targets: readonly Target[], options: BroadcastOptions): boolean {
    const { conflationKey, volatile = conflationKey !== undefined, idempotencyKey } = options
    const logged = targets.filter(({ name }) => this.#logs.of(name) !== undefined).length
    if (idempotencyKey !== undefined) assertKey(idempotencyKey, !volatile && logged === targets.length)
    return !volatile && logged > 0
  }

  /**
   * Resolves when the logs of all groups have the message; groups without a log get it in the same step, as a volatile one.
   * @throws what `Backplane.append` throws
   */
  async append (targets: readonly Target[], envelope: Envelope, { idempotencyKey }: BroadcastOptions): Promise<LoggedResult> {
    const groups = targets.map(({ name }) => ({ group: name, log: this.#logs.of(name) }))
    const { positions, queued, duplicate, logLengths = [] } = await this.#backplane.append(groups, envelope, idempotencyKey)
    if (this.#lengths !== undefined) for (const length of logLengths) this.#lengths.observe(length)
    const formatted = Array.from(positions, ([group, position]) => [group, formatPosition(position)] as const)
    const [first] = formatted
    return {
      scope: 'cluster',
      ...(targets.length === 1 && first !== undefined ? { position: first[1] } : { positions: Object.fromEntries(formatted) }),
      ...(queued ? { queued } : {}),
      ...(duplicate ? { duplicate } : {})
    }
  }
}

/**
 * Refuses the idempotency key of a message that goes through no log, because nothing would remember the key.
 * @throws {WebsocketGroupsError} WSG_IDEMPOTENCY_INVALID
 */
export function assertNoKey ({ idempotencyKey }: BroadcastOptions = {}): void {
  if (idempotencyKey !== undefined) assertKey(idempotencyKey, false)
}

function assertKey (key: unknown, logged: boolean): void {
  if (typeof key !== 'string' || key === '' || Buffer.byteLength(key) > maxKeyBytes) {
    throw new WebsocketGroupsError('WSG_IDEMPOTENCY_INVALID', `idempotencyKey must be a string of 1 to ${maxKeyBytes} bytes`)
  }
  if (!logged) throw new WebsocketGroupsError('WSG_IDEMPOTENCY_INVALID', 'only a group with a log remembers an idempotencyKey')
}
