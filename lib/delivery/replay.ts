import type { Backplane, LogPosition } from '../backplane/backplane.ts'
import type { LocalConnection } from '../connection/connection.ts'
import { Holdback } from '../hub/holdback.ts'
import type { Hub } from '../hub/hub.ts'
import { formatPosition, samePosition } from '../backplane/position.ts'
import { assertPosition, type Backlog } from './backlog.ts'
import type { JoinOptions, JoinResult } from '../types.ts'

/** A connection that joins a group and is first told what it missed; what comes live is kept back until then. */
export interface PendingReplay {
  readonly connection: LocalConnection
  readonly group: string
  readonly options: JoinOptions
  readonly holdback: Holdback
}

/** Hands a joining connection what it missed, then what came meanwhile, each message once and in order. */
export class Replay {
  readonly #hub: Hub
  readonly #backplane: Backplane
  readonly #resume: Backlog

  constructor (hub: Hub, backplane: Backplane, resume: Backlog) {
    this.#hub = hub
    this.#backplane = backplane
    this.#resume = resume
  }

  /**
   * Keeps live messages back from now on, if there is anything to tell first. Called before the connection is in the group.
   * @throws {WebsocketGroupsError} WSG_POSITION_INVALID
   */
  hold (connection: LocalConnection, group: string, { since = connection.resume?.get(group), history = 0 }: JoinOptions): PendingReplay | undefined {
    // What is remembered ends where this instance stopped to follow the log.
    if (this.#backplane.position(group) === undefined) this.#resume.forget(group)
    if (since === undefined && history === 0 && !connection.framed) return undefined
    if (since !== undefined) assertPosition(since)
    connection.resume?.delete(group)
    connection.held ??= new Map()
    const holdback = new Holdback()
    connection.held.set(group, holdback)
    return { connection, group, options: { history, ...(since === undefined ? {} : { since }) }, holdback }
  }

  /** The join failed. */
  drop (held: PendingReplay): void {
    if (isCurrent(held)) held.connection.held?.delete(held.group)
  }

  /** The instance is subscribed. Resolves with what the join's result says of it. */
  async play (held: PendingReplay, scope: JoinResult['scope']): Promise<JoinResult> {
    const { connection, group, options, holdback } = held
    try {
      const { before, messages, epoch, ...recovery } = await this.#resume.replay(group, options)
      const result: JoinResult = { scope, ...recovery, ...(before === undefined ? {} : { position: formatPosition(before) }) }
      // It left the group meanwhile, and may even have joined anew.
      if (!isCurrent(held)) return result
      connection.announceJoined(group, result)
      const reached = this.#backplane.position(group)
      // The log may be ahead of what this instance has delivered: the rest of it comes live.
      const due = messages.filter(({ position }) => isDelivered(position, reached))
      for (const envelope of due) this.#hub.replay(connection, envelope)
      const last = due.at(-1)?.position ?? before
      const waited = holdback.release(last === undefined ? undefined : { position: last, epoch: last.epoch === '' ? epoch ?? '' : last.epoch, told: recovery.recovered === false })
      for (const news of waited) {
        if ('reason' in news) connection.announceGap(group, news)
        else if (!connection.hold(news)) this.#hub.replay(connection, news)
      }
      // What comes next begins where the connection is: there is nothing more to hold back, unless this instance is somewhere else.
      if (reached === undefined || last === undefined || samePosition(last, reached)) connection.held?.delete(group)
      if (reached === undefined && last !== undefined) this.#backplane.follow?.(group, last)
      return result
    } finally {
      this.drop(held)
    }
  }
}

function isCurrent ({ connection, group, holdback }: PendingReplay): boolean {
  return holdback.holding && connection.held?.get(group) === holdback
}

function isDelivered (position: LogPosition, reached: LogPosition | undefined): boolean {
  return reached === undefined || (position.epoch === reached.epoch && position.offset <= reached.offset)
}
