import type { Backplane, Envelope, LogSettings, Target } from '../backplane/backplane.ts'
import { WebsocketGroupsError } from '../errors.ts'
import type { GroupLogs } from '../options/group-logs.ts'
import { formatPosition } from '../backplane/position.ts'
import type { BroadcastOptions, BroadcastResult } from '../types.ts'

const maxKeyBytes = 255

type Publishing = Pick<Backplane, 'append' | 'publish'>
type LoggedResult = Omit<BroadcastResult, 'localRecipients' | 'slowRecipients'>

interface StoredIn {
  readonly group: string
  readonly position: string
  readonly queued: boolean
  readonly duplicate: boolean
}

/** Broadcasts to groups of which at least one has a log. */
export class LoggedPublish {
  readonly #backplane: Publishing
  readonly #logs: GroupLogs

  constructor (backplane: Publishing, logs: GroupLogs) {
    this.#backplane = backplane
    this.#logs = logs
  }

  /** Whether a broadcast with these options goes through a log. @throws {WebsocketGroupsError} WSG_IDEMPOTENCY_INVALID */
  usesLog (targets: readonly Target[], options: BroadcastOptions): boolean {
    const { conflationKey, volatile = conflationKey !== undefined, idempotencyKey } = options
    const logged = targets.filter(({ name }) => this.#logs.of(name) !== undefined).length
    if (idempotencyKey !== undefined) assertKey(idempotencyKey, !volatile && logged === targets.length)
    return !volatile && logged > 0
  }

  /**
   * Resolves when every group's log has the message; groups without a log get a volatile one.
   * @throws what `Backplane.append` and `Backplane.publish` throw
   */
  async append (targets: readonly Target[], envelope: Envelope, { idempotencyKey }: BroadcastOptions): Promise<LoggedResult> {
    const appended = await Promise.all(targets.map(async target => {
      const log = this.#logs.of(target.name)
      if (log !== undefined) return await this.#appendOne(target, envelope, log, idempotencyKey)
      await this.#backplane.publish([target], envelope)
      return undefined
    }))
    const stored = appended.filter(one => one !== undefined)
    const [first] = stored
    const positions = (): Record<string, string> => Object.fromEntries(stored.map(({ group, position }) => [group, position]))
    return {
      scope: 'cluster',
      ...(targets.length === 1 && first !== undefined ? { position: first.position } : { positions: positions() }),
      ...(stored.some(({ queued }) => queued) ? { queued: true } : {}),
      ...(stored.length > 0 && stored.every(({ duplicate }) => duplicate) ? { duplicate: true } : {})
    }
  }

  async #appendOne (target: Target, envelope: Envelope, log: LogSettings, key: string | undefined): Promise<StoredIn> {
    const { position, queued, duplicate } = await this.#backplane.append(target.name, { ...envelope, target }, log, key)
    return { group: target.name, position: formatPosition(position), queued, duplicate }
  }
}

function assertKey (key: unknown, logged: boolean): void {
  if (typeof key !== 'string' || key === '' || Buffer.byteLength(key) > maxKeyBytes) {
    throw new WebsocketGroupsError('WSG_IDEMPOTENCY_INVALID', `idempotencyKey must be a string of 1 to ${maxKeyBytes} bytes`)
  }
  if (!logged) throw new WebsocketGroupsError('WSG_IDEMPOTENCY_INVALID', 'only a group with a log remembers an idempotencyKey')
}
