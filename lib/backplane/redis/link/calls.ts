import { WebsocketGroupsError } from '../../../errors.ts'
import { CallDeadline } from './call-deadline.ts'

/**
 * How a link treats a call. `publish`: a message that fails is delivered to the members here instead, so these calls fail in their order,
 * and all of them as soon as new ones would fail at once. `bulk`: the answer may be large.
 */
export type CallKind = 'call' | 'publish' | 'bulk'

export interface CallOptions {
  /** The call is given up when no bytes came for this long (milliseconds). */
  readonly deadlineMs: number
  /** The call is given up after this long in any case (milliseconds). */
  readonly maxMs: number
  readonly kind: CallKind
}

interface CallEvents {
  /** How many bytes came on the present connection so far. */
  received (): number
  answered (): void
  /** A call was given up. `silent`: no byte came meanwhile. */
  missed (silent: boolean, kind: CallKind): void
  /** Turns a failure into the error that the caller gets. */
  translate (error: Error): Error
}

type Fail = (error: Error) => void

/** The calls of one link that are under way. Each settles with its answer, at its deadline, or when the link breaks. */
export class Calls {
  readonly #events: CallEvents
  /** The function that fails each call, and the kind of the call; in the order of the calls. */
  readonly #pending = new Map<Fail, CallKind>()

  constructor (events: CallEvents) {
    this.#events = events
  }

  /** `settled` tells a command of two steps, before the second, whether its caller has an outcome already. */
  run<T> (command: (settled: () => boolean) => Promise<T>, { deadlineMs, maxMs, kind }: CallOptions): Promise<T> {
    const { received, answered, missed, translate } = this.#events
    return new Promise<T>((resolve, reject) => {
      const fail: Fail = error => {
        deadline.stop()
        this.#pending.delete(fail)
        reject(error)
      }
      const deadline = new CallDeadline(deadlineMs, maxMs, received, (tookMs, silent) => {
        missed(silent, kind)
        const why = `Redis did not answer within ${Math.round(tookMs)} ms`
        // In a busy process the timers of earlier publishes may be late: those calls fail first.
        if (kind === 'publish') this.fail(why, ['publish'], fail)
        fail(new WebsocketGroupsError('WSG_TIMEOUT', why))
      })
      this.#pending.set(fail, kind)
      command(() => !this.#pending.has(fail)).then(value => {
        deadline.stop()
        this.#pending.delete(fail)
        answered()
        resolve(value)
      }, (error: Error) => fail(translate(error)))
    })
  }

  /** Fails the calls under way that are of these kinds, in their order, with an unknown outcome: those before `end`, or all. */
  fail (why: string, kinds: readonly CallKind[] = ['call', 'publish', 'bulk'], end?: Fail): void {
    for (const [fail, kind] of this.#pending) {
      if (fail === end) return
      if (kinds.includes(kind)) fail(new WebsocketGroupsError('WSG_TIMEOUT', why))
    }
  }
}
