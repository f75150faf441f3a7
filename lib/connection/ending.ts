import type { WebSocket } from 'ws'
import type { Closed } from './inbound/message-queue.ts'

/** How long the other side may take to answer a close, and to end its socket; ws itself would wait 30 s. */
const answerMs = 2_000

/** The end of a connection: from the moment that one side says that it closes to the moment that its socket is gone. */
export class Ending {
  /** Whether the application closed the connection for good. */
  readonly dismissed: boolean
  #released: Promise<void> = Promise.resolve()
  #said: Closed | undefined
  #groups: readonly string[] | undefined
  #timer: NodeJS.Timeout | undefined
  #over = false

  constructor (said: Closed | undefined, dismissed: boolean) {
    this.#said = said
    this.dismissed = dismissed
  }

  /** Settles when the backplane knows that the memberships are gone. */
  get released (): Promise<void> {
    return this.#released
  }

  /** Rejections are handled by the code that reads `released`. That happens at the end of the socket, which may be much later. */
  set released (released: Promise<void>) {
    released.catch(() => {})
    this.#released = released
  }

  /** The close that was sent or received first; `undefined` when the socket broke without one. */
  get said (): Closed | undefined {
    return this.#said
  }

  /** The groups that the connection was in when it left them. */
  get groups (): readonly string[] | undefined {
    return this.#groups
  }

  /** Keeps the groups that the connection left, and terminates the socket soon unless it ends by itself. A second call returns `false`. */
  begin (groups: readonly string[], socket: Pick<WebSocket, 'terminate'>): boolean {
    if (this.#groups !== undefined) return false
    this.#groups = Object.freeze(groups)
    this.#timer = setTimeout(() => socket.terminate(), answerMs).unref()
    return true
  }

  /** The socket is gone. Returns the close that was said first, else `closed`; a second call returns `undefined`. */
  finish (closed: Closed): Closed | undefined {
    if (this.#over) return undefined
    this.#over = true
    this.#said ??= closed
    clearTimeout(this.#timer)
    return this.#said
  }
}
