import { maxCopies } from './limits.ts'
import { fromPayload, type Frame } from './payload.ts'
import { remember, type Positions } from './positions.ts'
import { Roster } from './roster.ts'
import type { JoinedFrame } from '../protocol/frames.ts'
import type { ClientEvents } from './types.ts'

interface DispatcherHost {
  tell<Name extends keyof ClientEvents> (name: Name, event: ClientEvents[Name]): void
  /** The server took this connection out of the group. */
  left (group: string): void
}

/** Hands what comes from the groups to the handlers, and then notes its position. */
export class Dispatcher {
  /** The groups that the server said this connection is in. */
  readonly joined = new Set<string>()
  readonly roster = new Roster()
  readonly #positions: Positions
  /** The latest messages to several groups: a break may come between their copies. */
  readonly #copies = new Set<string>()
  readonly #host: DispatcherHost

  constructor (positions: Positions, host: DispatcherHost) {
    this.#positions = positions
    this.#host = host
  }

  receive (frame: Frame): void {
    const { tell } = this.#host
    switch (frame.type) {
      case 'message': {
        const { group, position, copy, at } = frame
        if (group && position && this.#positions.has(group, position)) return
        if (copy && this.#copies.has(copy)) return this.#reached(group, position)
        if (copy) remember(this.#copies, copy, maxCopies)
        tell('message', { group, data: fromPayload(frame), position, ...at && { at } })
        return this.#reached(group, position)
      }
      case 'joined':
        return this.#joined(frame)
      case 'position':
        return this.#reached(frame.group, frame.position)
      case 'gap':
        tell('gap', frame)
        return this.#reached(frame.group, frame.position)
      case 'left':
        this.forget(frame.group)
        this.#host.left(frame.group)
        return tell('left', frame)
      case 'presence':
        return tell('presence', { ...frame, event: this.roster.change(frame) })
      case 'count':
        return tell('count', frame)
      case 'members':
        this.roster.replace(frame.group, frame.members)
        tell('members', frame)
    }
  }

  forget (group: string): void {
    this.joined.delete(group)
    this.roster.delete(group)
    this.#positions.delete(group)
  }

  #joined (frame: JoinedFrame): void {
    const { group, recovered, reason = 'unavailable', position } = frame
    const again = this.joined.has(group)
    const held = this.#positions.get(group)
    this.joined.add(group)
    this.#host.tell('joined', frame)
    // A second `joined` on one connection says nothing new about what was missed.
    if (again && held) return
    // The client offered a position and the server says nothing about it: messages after it may be lost.
    if (recovered === false || (held && !recovered)) this.#host.tell('gap', { group, reason, position })
    if (!position) this.#positions.delete(group)
    this.#reached(group, position, frame.grant)
  }

  #reached (group: string | undefined, position: string | undefined, grant?: string): void {
    // Positions that arrive during or after a leave do not count: a later join would resume from them.
    if (group && position && this.joined.has(group)) this.#positions.set(group, position, grant)
  }
}
