import type { BackplaneState } from '../../types.ts'

/** How long a passing trouble lasts before it is reported (milliseconds). */
const lastsMs = 1_000

interface Observed {
  readonly state: BackplaneState
  /** Whether nothing is wrong but that logs are being caught up with, which takes no time if a group missed a few messages. */
  readonly passing: boolean
}

/** Reports each change of a state once, and leaves out passing troubles that are over in a moment. */
export class StateReport {
  readonly #observed: Observed
  readonly #changed: () => void
  readonly #patient: boolean
  #reported: BackplaneState = 'down'
  #timer: NodeJS.Timeout | undefined

  /** `patient`: passing troubles get a moment to end. Not for one partition of many: the report on all of them gives that moment. */
  constructor (observed: Observed, changed: () => void, patient = true) {
    this.#observed = observed
    this.#changed = changed
    this.#patient = patient
  }

  /** Takes the present state as reported. */
  begin (): void {
    this.#reported = this.#observed.state
  }

  /** Called whenever the state may have changed. */
  look (): void {
    const { state, passing } = this.#observed
    if (this.#patient && passing && this.#reported === 'up') this.#timer ??= setTimeout(() => this.#report(), lastsMs).unref()
    else if (state === this.#reported) this.close()
    else this.#report()
  }

  close (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #report (): void {
    this.close()
    this.#reported = this.#observed.state
    this.#changed()
  }
}
