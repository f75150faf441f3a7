import type { Backplane, Envelope, LogPosition } from './backplane/backplane.ts'
import type { LocalConnection } from './connection.ts'
import type { Hub } from './hub.ts'
import { formatPosition } from './position.ts'
import { assertPosition, type Resume } from './resume.ts'
import type { JoinOptions, JoinResult } from './types.ts'

/** A connection that joins a group and is first told what it missed; what comes live is kept back until then. */
export interface Held {
  readonly connection: LocalConnection
  readonly group: string
  readonly options: JoinOptions
  /** What came live meanwhile. */
  readonly live: readonly Envelope[]
}

/** Hands a joining connection what it missed, then what came meanwhile, each message once and in order. */
export class Replays {
  readonly #hub: Hub
  readonly #backplane: Backplane
  readonly #resume: Resume

  constructor (hub: Hub, backplane: Backplane, resume: Resume) {
    this.#hub = hub
    this.#backplane = backplane
    this.#resume = resume
  }

  /**
   * Keeps live messages back from now on, if there is anything to tell first. Called before the connection is in the group.
   * @throws {WebsocketGroupsError} WSG_POSITION_INVALID
   */
  hold (connection: LocalConnection, group: string, { since = connection.resume?.get(group), history = 0 }: JoinOptions): Held | undefined {
    if (since === undefined && history === 0 && !connection.framed) return undefined
    if (since !== undefined) assertPosition(since)
    connection.resume?.delete(group)
    connection.held ??= new Map()
    const live: Envelope[] = []
    connection.held.set(group, live)
    return { connection, group, options: { history, ...(since === undefined ? {} : { since }) }, live }
  }

  /** The join failed. */
  drop (held: Held): void {
    if (isCurrent(held)) held.connection.held?.delete(held.group)
  }

  /** The instance is subscribed. Resolves with what the join's result says of it. */
  async play (held: Held, scope: JoinResult['scope']): Promise<JoinResult> {
    const { connection, group, options, live } = held
    try {
      const { before, messages, ...recovery } = await this.#resume.replay(group, options)
      const result: JoinResult = { scope, ...recovery, ...(before === undefined ? {} : { position: formatPosition(before) }) }
      // It left the group meanwhile, and may even have joined anew.
      if (!isCurrent(held)) return result
      connection.held?.delete(group)
      connection.announceJoined(group, result)
      // The log may be ahead of what this instance has delivered: the rest of it comes live.
      const due = messages.filter(({ position }) => isDelivered(position, this.#backplane.position(group)))
      for (const envelope of due) this.#hub.replay(connection, envelope)
      const last = due.at(-1)?.position ?? before
      for (const envelope of live) if (isAfter(envelope, last)) this.#hub.replay(connection, envelope)
      return result
    } finally {
      this.drop(held)
    }
  }
}

function isCurrent ({ connection, group, live }: Held): boolean {
  return connection.held?.get(group) === live
}

function isDelivered (position: LogPosition, reached: LogPosition | undefined): boolean {
  return reached === undefined || (position.epoch === reached.epoch && position.offset <= reached.offset)
}

/** Volatile messages are not in the log, and so were not replayed. */
function isAfter ({ position }: Envelope, last: LogPosition | undefined): boolean {
  return position === undefined || last === undefined || position.epoch !== last.epoch || position.offset > last.offset
}
