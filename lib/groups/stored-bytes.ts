import { RateTable } from '../connection/inbound/rate.ts'
import { WebsocketGroupsError } from '../errors.ts'
import type { Metrics } from '../metrics.ts'
import type { GroupLogs } from '../options/group-logs.ts'
import type { ResolvedLimits } from '../options/limits.ts'
import type { AnyConnection, Data } from '../types.ts'

/** How many users have their bytes counted; beyond that, the users who were quiet the longest are forgotten. */
const maxUsers = 20_000

/**
 * Limits what each user stores in the logs of rooms that relay messages. Each log has a limit of its own, but a user who enters many rooms
 * could fill Redis. A connection counts with the bytes that it adds to the log of its room, up to what that log keeps: a user who sends
 * much in few rooms is not held up.
 */
export class StoredBytes {
  readonly #users: RateTable | undefined
  readonly #logs: Pick<GroupLogs, 'of'>
  readonly #metrics: Pick<Metrics, 'limitHit'>
  /** How many bytes each connection counts for. A connection relays to one room. */
  readonly #counted = new WeakMap<AnyConnection, number>()

  constructor ({ storedBytes }: Pick<ResolvedLimits, 'storedBytes'>, logs: Pick<GroupLogs, 'of'>, metrics: Pick<Metrics, 'limitHit'>) {
    this.#users = storedBytes === undefined ? undefined : new RateTable(storedBytes, maxUsers)
    this.#logs = logs
    this.#metrics = metrics
  }

  /**
   * Counts a message that the connection is about to add to the log of its room.
   * @throws {WebsocketGroupsError} WSG_RATE_LIMITED
   */
  add (connection: AnyConnection, group: string, data: Data): void {
    const { userId } = connection
    const log = this.#logs.of(group)
    if (this.#users === undefined || userId === undefined || log === undefined) return
    const counted = this.#counted.get(connection) ?? 0
    const bytes = counted < log.maxBytes ? Math.min(Buffer.byteLength(data), log.maxBytes - counted) : 0
    if (bytes === 0) return
    if (this.#users.take(userId, bytes) > 0) {
      this.#metrics.limitHit('storedBytesRefused', connection)
      throw new WebsocketGroupsError('WSG_RATE_LIMITED', 'this user stores too much in too many rooms')
    }
    this.#counted.set(connection, counted + bytes)
  }
}
