import { fromPayload, type Frame } from './payload.ts'
import type { Positions } from './positions.ts'
import { Roster } from './roster.ts'
import type { ClientEvents, Joined } from './types.ts'

export interface DispatcherHost {
  tell<Name extends keyof ClientEvents> (name: Name, event: ClientEvents[Name]): void
  /** The server took this connection out of the group. */
  left (group: string): void
}

/** What comes from the groups: handed to the handlers, then counted. */
export class Dispatcher {
  readonly joined = new Set<string>()
  readonly roster = new Roster()
  readonly #positions: Positions
  readonly #host: DispatcherHost

  constructor (positions: Positions, host: DispatcherHost) {
    this.#positions = positions
    this.#host = host
  }

  receive (frame: Frame): void {
    const { tell } = this.#host
    switch (frame.type) {
      case 'message': {
        const { group, position } = frame
        if (group && position && this.#positions.has(group, position)) return
        tell('message', { group, data: fromPayload(frame), position })
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
        if (this.roster.change(frame)) tell('presence', frame)
        return
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

  #joined (frame: Joined): void {
    const { group, recovered, reason = 'unavailable', position } = frame
    const again = this.joined.has(group)
    const held = this.#positions.get(group)
    this.joined.add(group)
    this.#host.tell('joined', frame)
    // A second answer on one connection says nothing new about what was missed.
    if (again && held) return
    // Without an answer to the position that was offered, nothing is known of what came after it.
    if (recovered === false || (held && !recovered)) this.#host.tell('gap', { group, reason, position })
    if (!position) this.#positions.delete(group)
    this.#reached(group, position)
  }

  #reached (group: string | undefined, position: string | undefined): void {
    // Not after a leave: what was on the way then would be resumed from later.
    if (group && position && this.joined.has(group)) this.#positions.set(group, position)
  }
}
