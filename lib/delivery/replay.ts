import type { Backplane, LogPosition } from '../backplane/backplane.ts'
import { samePosition } from '../backplane/position.ts'
import type { Holdback, ReplayEnd } from '../hub/holdback.ts'
import type { Hub } from '../hub/hub.ts'
import type { LocalMember } from '../hub/local-member.ts'
import type { JoinOptions, JoinResult } from '../types.ts'
import type { Backlog } from './backlog.ts'
import { ResumeProofs, type ProofKeys } from './resume-proofs.ts'

/** A member that is first told what it missed; live messages are held back until then. */
export interface PendingReplay {
  readonly member: LocalMember
  readonly options: JoinOptions
  /** What the client sent to prove that it was in the group before. */
  readonly grant: string | undefined
  readonly holdback: Holdback
}

const noProofs = new ResumeProofs([])

/** Gives a joining connection what it missed, then what came meanwhile, each message once and in order. */
export class Replay {
  readonly #hub: Hub
  readonly #backplane: Backplane
  readonly #backlog: Backlog
  readonly #proofKeys: ProofKeys

  constructor (hub: Hub, backplane: Backplane, backlog: Backlog, proofKeys: ProofKeys) {
    this.#hub = hub
    this.#backplane = backplane
    this.#backlog = backlog
    this.#proofKeys = proofKeys
  }

  /** Holds live messages back from now on, if there is anything to tell first. Called in the turn in which the member was added. */
  hold (member: LocalMember, { since, history = 0 }: JoinOptions): PendingReplay | undefined {
    const { connection, group } = member
    // The cache ends where this instance stopped to follow the log.
    if (this.#backplane.position(group) === undefined) this.#backlog.forget(group)
    const offer = connection.takeOffer(group)
    const from = since ?? offer?.since
    if (from === undefined && history === 0 && !connection.framed) return undefined
    const asked = { history, ...(from === undefined ? {} : { since: from }) }
    return { member, options: asked, grant: offer?.grant, holdback: member.startHold() }
  }

  /** Gives up: the join failed. */
  drop (pending: PendingReplay): void {
    if (isCurrent(pending)) pending.member.dropHold()
  }

  /** Replays, once the instance is subscribed. Resolves with what the result of the join says of it. */
  async play (pending: PendingReplay, scope: JoinResult['scope']): Promise<JoinResult> {
    const { member, options, grant } = pending
    const { connection, group } = member
    try {
      // A group without a log has nothing to prove anything for.
      const proofs = this.#backlog.isLogged(group) ? await this.#proofKeys.proofs() : noProofs
      const floor = options.since === undefined ? undefined : proofs.floor(group, connection.sessionName, options.since, grant)
      const { before, messages, epoch, ...recovery } = await this.#backlog.replay(group, options, floor)
      const result: JoinResult = { scope, ...recovery, ...(before === undefined ? {} : { position: proofs.format(group, before) }) }
      // The connection left the group meanwhile, and may even have joined anew.
      if (!isCurrent(pending)) return result
      const { recovered, reason, position } = result
      const { sessionName } = connection
      const proof = before === undefined || sessionName === undefined ? undefined : proofs.grant(group, sessionName, before)
      connection.announce({ type: 'joined', group, recovered, reason, position, grant: proof })
      const reached = this.#backplane.position(group)
      // The log may be ahead of what this instance has delivered: the rest of the log comes live.
      const due = messages.filter(({ position }) => isDelivered(position, reached))
      for (const envelope of due) this.#hub.replay(member, envelope)
      const last = due.at(-1)?.position ?? before
      const end = (position: LogPosition): ReplayEnd => {
        return { position, epoch: position.epoch === '' ? epoch ?? '' : position.epoch, told: recovered === false }
      }
      for (const news of member.releaseHold(last === undefined ? undefined : end(last))) {
        if ('reason' in news) member.gap(news)
        else if (!member.hold(news)) this.#hub.replay(member, news)
      }
      // What comes next begins where the client is: nothing is left to drop, unless this instance is somewhere else.
      if (reached === undefined || last === undefined || samePosition(last, reached)) member.dropHold()
      if (reached === undefined && last !== undefined) this.#backplane.follow?.(group, last)
      return result
    } finally {
      this.drop(pending)
    }
  }
}

function isCurrent ({ member, holdback }: PendingReplay): boolean {
  return holdback.holding && member.holdback === holdback
}

function isDelivered (position: LogPosition, reached: LogPosition | undefined): boolean {
  return reached === undefined || (position.epoch === reached.epoch && position.offset <= reached.offset)
}
