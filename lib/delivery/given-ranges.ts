import type { Backplane, Envelope, LoggedEnvelope } from '../backplane/backplane.ts'
import type { LocalConnection } from '../connection/connection.ts'
import type { Hub } from '../hub/hub.ts'
import type { LocalMember } from '../hub/local-member.ts'

/** All messages of a log after `from`, up to `to`. */
interface Range {
  readonly member: LocalMember
  readonly epoch: string
  readonly from: number
  to: number
}

/**
 * Remembers what connections were given from the logs of their groups. A message to several groups stands in the log of each, and a
 * connection that resumes several of them reads it in each: where its copies stand says whether the connection has it, however many there
 * are. Only connections that were given such messages cost memory: a range per group.
 */
export class GivenRanges {
  readonly #hub: Pick<Hub, 'find'>
  readonly #backplane: Pick<Backplane, 'position'>
  readonly #ranges = new WeakMap<LocalConnection, Map<string, Range>>()

  constructor (hub: Pick<Hub, 'find'>, backplane: Pick<Backplane, 'position'>) {
    this.#hub = hub
    this.#backplane = backplane
  }

  /** The member was given the message, or has it through another of its groups, and so has all messages of the log since `from`. */
  add (member: LocalMember, { position: { epoch, offset }, shared }: LoggedEnvelope, from: number): void {
    const { connection, group } = member
    let ranges = this.#ranges.get(connection)
    const known = ranges?.get(group)
    if (known?.member === member && known.epoch === epoch && known.from === from) known.to = offset
    else if (shared || known !== undefined) {
      if (ranges === undefined) this.#ranges.set(connection, ranges = new Map())
      ranges.set(group, { member, epoch, from, to: offset })
    }
  }

  /** Whether the connection was given the message from the log of another group. */
  has ({ connection, group }: LocalMember, { places = [] }: Envelope): boolean {
    const ranges = this.#ranges.get(connection)
    if (ranges === undefined) return false
    return places.some(place => {
      const range = place.group === group ? undefined : ranges.get(place.group)
      return range?.epoch === place.epoch && place.offset > range.from && place.offset <= this.#endOf(range)
    })
  }

  /** How far the range reaches now: a member in step has everything that this instance has delivered. */
  #endOf ({ member, epoch, to }: Range): number {
    if (member.holding || this.#hub.find(member.connection, member.group) !== member) return to
    const reached = this.#backplane.position(member.group)
    return reached?.epoch === epoch ? Math.max(to, reached.offset) : to
  }
}
