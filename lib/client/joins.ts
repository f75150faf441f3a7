import { ClientError } from './errors.ts'
import type { Positions } from './positions.ts'
import { closed, quiet, type SendQueue } from './send-queue.ts'

interface Wanted {
  /** Settles the promise; later calls change nothing. */
  settle: (error?: ClientError) => void
  /** The position that the caller gave. It survives the leave of an earlier membership. */
  readonly since: string | undefined
  readonly history: number | undefined
  /** How many parts of the page want the group. */
  times: number
  promise: Promise<void>
  /** The promise is settled: later answers are to joins that follow a break. */
  settled?: boolean
}

interface JoinsHost {
  /** The client left the group, or has no connection that could be in it. */
  left (group: string): void
  /** The server cannot join this client to its group now. */
  unavailable (error: ClientError): void
  failed (error: ClientError): void
}

/** The groups that this client joined by itself, and joins again on each connection. The route joins its own groups again. */
export class Joins {
  readonly #wanted = new Map<string, Wanted>()
  /** By group, the latest leave that the server has not answered yet. */
  readonly #leaving = new Map<string, unknown>()
  readonly #requests: SendQueue
  readonly #positions: Positions
  readonly #host: JoinsHost

  constructor (requests: SendQueue, positions: Positions, host: JoinsHost) {
    this.#requests = requests
    this.#positions = positions
    this.#host = host
  }

  has (group: string): boolean {
    return this.#wanted.has(group)
  }

  join (group: string, open: boolean, since?: string, history?: number): Promise<void> {
    const known = this.#wanted.get(group)
    // A member goes on from where it is. During a leave the position would count for the membership that ends.
    if (since && !known?.settled && !this.#leaving.has(group)) this.#positions.set(group, since)
    if (known) {
      known.times++
      return known.promise
    }
    const wanted = { since, history, times: 1 } as Wanted
    this.#wanted.set(group, wanted)
    wanted.promise = quiet(new Promise((resolve, reject) => {
      wanted.settle = error => error ? reject(error) : resolve()
    }))
    if (open) this.#ask(group, wanted)
    return wanted.promise
  }

  leave (group: string, open: boolean): Promise<void> {
    const wanted = this.#wanted.get(group)
    if (wanted && --wanted.times) return Promise.resolve()
    this.forget(group)
    return quiet(new Promise((resolve, reject) => {
      const left = (error?: ClientError): void => {
        const last = this.#leaving.get(group) === left && this.#leaving.delete(group)
        // A connection that is gone is in no group.
        if (error && error.code !== 'UNKNOWN_OUTCOME') return reject(error)
        this.#host.left(group)
        // A join that was called meanwhile starts at the position that its caller gave, or afresh.
        const since = last && this.#wanted.get(group)?.since
        if (since) this.#positions.set(group, since)
        resolve()
      }
      this.#leaving.set(group, left)
      if (open) this.#requests.ask({ type: 'leave', group }, left)
      else left()
    }))
  }

  /** The server says that the client left. During a leave that is about the old membership, not about a join that followed. */
  lost (group: string): void {
    if (!this.#leaving.has(group)) this.forget(group)
  }

  forget (group: string, error = new ClientError('LEFT', 'the group was left', { group })): void {
    const wanted = this.#wanted.get(group)
    this.#wanted.delete(group)
    wanted?.settle(error)
  }

  /** Joins everything again, on a new connection. */
  joinAgain (): void {
    for (const [group, wanted] of this.#wanted) this.#ask(group, wanted)
  }

  close (): void {
    for (const group of this.#wanted.keys()) this.forget(group, closed())
  }

  #ask (group: string, wanted: Wanted): void {
    const since = this.#leaving.has(group) ? wanted.since : this.#positions.get(group)
    this.#requests.ask({ type: 'join', group, since, history: since || wanted.settled ? undefined : wanted.history }, error => {
      const code = error?.code ?? ''
      if (this.#wanted.get(group) !== wanted || code === 'UNKNOWN_OUTCOME') return
      if (error && wanted.settled && /UNAVAILABLE|TIMEOUT/.test(code)) return this.#host.unavailable(error)
      if (error) this.#wanted.delete(group)
      if (error && wanted.settled) this.#host.failed(new ClientError(code, error.message, { group, details: error.details }))
      else wanted.settle(error)
      wanted.settled = true
    })
  }
}
