import type { BackplaneState } from '../../types.ts'

/** How long a trouble that may pass lasts before it is reported (milliseconds). */
const lastsMs = 1_000

export interface Observed {
  readonly state: BackplaneState
  /** Whether nothing is wrong but that logs are being caught up with: of a few messages that is over in no time, group by group. */
  readonly passing: boolean
}

/** Reports each change of a state once, and no passing trouble that is over in a moment. */
export class StateReport {
  readonly #observed: Observed
  readonly #changed: () => void
  readonly #patient: boolean
  #reported: BackplaneState = 'down'
  #timer: NodeJS.Timeout | undefined

  /** `patient`: passing troubles are given a moment. Not where somebody else puts states together, and gives it. */
  constructor (observed: Observed, changed: () => void, patient = true) {
    this.#observed = observed
    this.#changed = changed
    this.#patient = patient
  }

  /** Takes the state as it is for known. */
  begin (): void {
    this.#reported = this.#observed.state
  }

  /** The state may have changed. */
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
