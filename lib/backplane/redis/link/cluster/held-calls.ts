import { WebsocketGroupsError } from '../../../../errors.ts'

/** How many calls of one partition may wait for its new master. */
const maxHeld = 1_000

interface Held {
  readonly ticket: number
  readonly start: () => void
}

/** Calls of one partition that wait until its new master is known, in the order they were made. */
export class HeldCalls {
  readonly #calls: Held[] = []

  /**
   * Calls `start` in its turn, and settles as `start` does. `ticket` grows from call to call; `leftMs`: how long the call may wait.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE: its turn did not come in time, or too many wait
   */
  async add<T> (ticket: number, leftMs: number, start: () => Promise<T>): Promise<T> {
    const calls = this.#calls
    if (calls.length >= maxHeld) throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'too many calls wait for a slot that moved')
    return await new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        calls.splice(calls.indexOf(one), 1)
        reject(new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'the slot moved, and its new master is not known yet'))
      }, leftMs)
      const one = {
        ticket,
        start: () => {
          clearTimeout(timer)
          start().then(resolve, reject)
        }
      }
      const after = calls.findLastIndex(other => other.ticket < ticket)
      calls.splice(after + 1, 0, one)
    })
  }

  /** Starts all calls that wait. */
  start (): void {
    for (const { start } of this.#calls.splice(0)) start()
  }
}
