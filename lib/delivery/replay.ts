import { setTimeout as wait } from 'node:timers/promises'
import type { Backplane } from '../backplane/backplane.ts'
import { parsePosition } from '../backplane/position.ts'
import { deferred } from '../deadline.ts'
import { isOutage } from '../errors.ts'
import type { Hub } from '../hub/hub.ts'
import type { LocalMember } from '../hub/local-member.ts'
import type { BoundedLog } from '../logging.ts'
import { CloseCode } from '../protocol/close-codes.ts'
import type { JoinOptions, JoinResult } from '../types.ts'
import type { Backlog } from './backlog.ts'
import { CatchUp, type Catching } from './catch-up.ts'
import { GivenRanges } from './given-ranges.ts'
import { ReplayQueue } from './replay-queue.ts'
import { ResumeProofs, type ProofKeys } from './resume-proofs.ts'
import type { Revocations } from './revocations.ts'

const noProofs = new ResumeProofs([])
const retryMs = 250
const maxRetryMs = 4_000

export interface PendingReplay extends Catching {
  readonly options: JoinOptions
  /** What the client sent to prove that it was in the group before. */
  readonly grant: string | undefined
}

interface Begun {
  readonly result: JoinResult
  /** Whether the member is in step already. */
  readonly done: boolean
}

/**
 * Gives a joining connection what it missed, no faster than its client reads, then what came live meanwhile: each message once and in
 * order.
 */
export class Replay {
  readonly #hub: Hub
  readonly #backplane: Backplane
  readonly #backlog: Backlog
  readonly #proofKeys: ProofKeys
  readonly #revocations: Revocations
  readonly #lines: BoundedLog
  readonly #queue = new ReplayQueue()
  readonly #given: GivenRanges

  constructor (
    hub: Hub, backplane: Backplane, backlog: Backlog, proofKeys: ProofKeys, revocations: Revocations, lines: BoundedLog
  ) {
    this.#hub = hub
    this.#backplane = backplane
    this.#backlog = backlog
    this.#proofKeys = proofKeys
    this.#revocations = revocations
    this.#lines = lines
    this.#given = new GivenRanges(hub, backplane)
  }

  /** Holds live messages back from now on, if there is anything to send first. Called in the turn in which the member was added. */
  hold (member: LocalMember, { since, history = 0 }: JoinOptions): PendingReplay | undefined {
    const { connection, group } = member
    // The cache ends where this instance stopped following the log.
    if (this.#backplane.position(group) === undefined) this.#backlog.forget(group)
    const offer = connection.takeOffer(member.label)
    const from = since ?? offer?.since
    if (from === undefined && history === 0 && !connection.framed) return undefined
    const claimed = from === undefined ? undefined : parsePosition(from)
    if (claimed !== undefined) this.#hub.resumes(member, claimed)
    const asked = { history, ...(from === undefined ? {} : { since: from }) }
    return { member, options: asked, grant: offer?.grant, holdback: member.startHold() }
  }

  /** The join failed: gives up. */
  drop ({ member, holdback }: PendingReplay): void {
    if (holdback.holding && member.holdback === holdback) member.dropHold()
  }

  /**
   * Replays, once the instance is subscribed. Resolves with the result of the join when everything was handed over, or when the client has
   * to read before it gets more: the rest then follows as the client reads.
   */
  async play (pending: PendingReplay, scope: JoinResult['scope']): Promise<JoinResult> {
    const { connection } = pending.member
    const { since } = pending.options
    const claimed = since === undefined ? undefined : parsePosition(since)
    const catchUp = new CatchUp(this.#hub, this.#backplane, this.#backlog, this.#given, pending, claimed)
    const slow = deferred()
    try {
      const { result, done } = await this.#queue.run(connection, async () => await this.#begin(pending, catchUp, scope))
      if (done) {
        this.drop(pending)
        return result
      }
      const rest = this.#goOn(pending, catchUp, slow.resolve)
      await Promise.race([rest, slow.promise])
      return result
    } catch (error) {
      this.drop(pending)
      throw error
    }
  }

  async #begin (pending: PendingReplay, catchUp: CatchUp, scope: JoinResult['scope']): Promise<Begun> {
    const { member: { connection, group, label }, options, grant } = pending
    // Without a log there is nothing to prove.
    const isLogged = this.#backlog.isLogged(group)
    const proofs = isLogged ? await this.#proofKeys.proofs() : noProofs
    const { since } = options
    const standing = since === undefined || !isLogged ? {} : await this.#revocations.judge(proofs, connection, group, since, grant)
    catchUp.asking()
    const page = await this.#backlog.replay(group, options, standing)
    const { before, recovered, reason, claimed = before } = page
    const result: JoinResult = {
      scope,
      ...(recovered === undefined ? {} : { recovered }),
      ...(reason === undefined ? {} : { reason }),
      ...(claimed === undefined ? {} : { position: proofs.format(group, claimed) })
    }
    if (catchUp.over) return { result, done: true }
    const { sessionName } = connection
    // The grant is for the position of this instance: a position that the client merely claims must not open the log.
    const proof = before === undefined || sessionName === undefined
      ? undefined
      : proofs.grant(group, sessionName, { position: before, at: this.#revocations.now() })
    connection.announce({ type: 'joined', group: label, recovered, reason, position: result.position, grant: proof })
    if (recovered === false) connection.gapped(label, reason ?? 'unavailable')
    return { result, done: catchUp.give(page) }
  }

  /**
   * Never rejects. A page that cannot be read now is read later: the log keeps it, and the live messages after it are held back until then.
   */
  async #goOn (pending: PendingReplay, catchUp: CatchUp, waits: () => void): Promise<void> {
    const { connection, group } = pending.member
    let pauseMs = retryMs
    try {
      for (let done = false; !done;) {
        const room = connection.outbound.room()
        if (room !== undefined) {
          waits()
          await room
        }
        try {
          done = await this.#queue.run(connection, async () => await catchUp.next())
          pauseMs = retryMs
        } catch (error) {
          if (!isOutage(error)) throw error
          waits()
          await wait(pauseMs, undefined, { ref: false })
          pauseMs = Math.min(maxRetryMs, 2 * pauseMs)
        }
      }
    } catch (error) {
      this.#lines.write(connection.log, 'replay_failed', { err: error, group })
      connection.closeForFault(CloseCode.TryAgainLater, 'missed messages could not be read')
    } finally {
      this.drop(pending)
    }
  }
}
