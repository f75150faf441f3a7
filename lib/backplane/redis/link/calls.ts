import { WebsocketGroupsError } from '../../../errors.ts'
import { CallDeadline } from './call-deadline.ts'

export interface CallOptions {
  /** A call is given up when no bytes came for this long (milliseconds), */
  readonly deadlineMs: number
  /** and after this long in any case. */
  readonly maxMs: number
  /** Whether the answer may be large. */
  readonly bulk: boolean
}

export interface CallEvents {
  /** How many bytes came on the present connection so far. */
  received (): number
  answered (): void
  /** A call was given up. `silent`: no byte came meanwhile. */
  missed (silent: boolean, bulk: boolean): void
  /** Turns a failure into the error that the caller gets. */
  translate (error: Error): Error
}

/** The calls of one link that are under way. Each settles with its answer, at its deadline, or when the link breaks. */
export class Calls {
  readonly #events: CallEvents
  /** The function that fails each call, and whether it is a bulk read. */
  readonly #pending = new Map<(error: Error) => void, boolean>()

  constructor (events: CallEvents) {
    this.#events = events
  }

  /** `settled` tells a command of two steps whether its caller was given an outcome before the second. */
  async run<T> (command: (settled: () => boolean) => Promise<T>, { deadlineMs, maxMs, bulk }: CallOptions): Promise<T> {
    const { received, answered, missed, translate } = this.#events
    return await new Promise<T>((resolve, reject) => {
      const fail = (error: Error): void => {
        deadline.stop()
        this.#pending.delete(fail)
        reject(error)
      }
      const deadline = new CallDeadline(deadlineMs, maxMs, received, (tookMs, silent) => {
        missed(silent, bulk)
        fail(new WebsocketGroupsError('WSG_TIMEOUT', `Redis did not answer within ${Math.round(tookMs)} ms`))
      })
      this.#pending.set(fail, bulk)
      command(() => !this.#pending.has(fail)).then(value => {
        deadline.stop()
        this.#pending.delete(fail)
        answered()
        resolve(value)
      }, (error: Error) => fail(translate(error)))
    })
  }

  /** Fails all calls under way, or with `bulkOnly` the bulk reads, with an unknown outcome. */
  failAll (why: string, bulkOnly = false): void {
    for (const [fail, bulk] of [...this.#pending]) if (bulk || !bulkOnly) fail(new WebsocketGroupsError('WSG_TIMEOUT', why))
  }
}
