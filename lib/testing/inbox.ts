// Taken before the test starts: waits end in real time even if the test replaces the timers.
const { setTimeout: startTimer, clearTimeout: stopTimer } = globalThis

export interface Closed { readonly code: number, readonly reason: string }

export interface WaitOptions {
  /** How long to wait, in real time. @default 5_000 */
  readonly timeoutMs?: number | undefined
}

interface Waiter<Message> {
  readonly fits: (message: Message) => boolean
  resolve (message: Message): void
  reject (error: Error): void
}

/** What a client got, handed out in the order of arrival. */
export class Inbox<Message> {
  /** All messages so far, those that were handed out included. */
  readonly messages: Message[] = []
  #handedOut = 0
  #waiter: Waiter<Message> | undefined
  #closed: Closed | undefined
  readonly #closing: Array<(closed: Closed) => void> = []

  /**
   * Resolves with the next message.
   * @throws {Error} when the connection is closed, or nothing comes in time
   */
  async next (options?: WaitOptions): Promise<Message> {
    return await this.until(() => true, options)
  }

  /**
   * Resolves with the next message for which the predicate is true, and passes over those before it.
   * @throws {Error} as `next`, and whatever the predicate throws
   */
  async until (predicate: (message: Message) => boolean, { timeoutMs = 5_000 }: WaitOptions = {}): Promise<Message> {
    if (this.#waiter !== undefined) throw new Error('a call waits already: await next() or until() before the next one')
    return await new Promise((resolve, reject) => {
      const timer = startTimer(() => settle(() => reject(this.#missing(`within ${timeoutMs} ms`))), timeoutMs)
      const settle = (done: () => void): void => {
        stopTimer(timer)
        this.#waiter = undefined
        done()
      }
      this.#waiter = {
        fits: predicate,
        resolve: message => settle(() => resolve(message)),
        reject: error => settle(() => reject(error))
      }
      this.#handOut()
    })
  }

  /** Resolves with how the connection ended. @throws {Error} when it is still open after that time */
  async closed ({ timeoutMs = 5_000 }: WaitOptions = {}): Promise<Closed> {
    if (this.#closed !== undefined) return this.#closed
    return await new Promise((resolve, reject) => {
      const timer = startTimer(() => reject(new Error(`the connection is still open after ${timeoutMs} ms`)), timeoutMs)
      this.#closing.push(closed => {
        stopTimer(timer)
        resolve(closed)
      })
    })
  }

  protected received (message: Message): void {
    this.messages.push(message)
    this.#handOut()
  }

  protected ended (closed: Closed): void {
    this.#closed = closed
    for (const tell of this.#closing.splice(0)) tell(closed)
    this.#handOut()
  }

  #handOut (): void {
    const waiter = this.#waiter
    if (waiter === undefined) return
    while (this.#handedOut < this.messages.length) {
      const message = this.messages[this.#handedOut++] as Message
      try {
        if (waiter.fits(message)) return waiter.resolve(message)
      } catch (error) {
        // Not thrown on: this runs inside an event of the socket, where it would end the process.
        return waiter.reject(error as Error)
      }
    }
    if (this.#closed === undefined) return
    const { code, reason } = this.#closed
    waiter.reject(this.#missing(`before the connection closed with ${code}${reason === '' ? '' : ` ${reason}`}`))
  }

  #missing (when: string): Error {
    const latest = this.messages.slice(-3).map(message => typeof message === 'string' ? message : JSON.stringify(message)).join(', ')
    return new Error(`no such message ${when}; ${this.messages.length} came so far${latest === '' ? '' : `, the latest: ${latest}`}`)
  }
}
