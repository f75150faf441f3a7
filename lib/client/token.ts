import { ClientError } from './errors.ts'
import { maxLeadMs, maxTimerMs, minRefreshMs } from './limits.ts'
import type { ConnectOptions, ExpiringToken } from './types.ts'

interface TokenHost {
  /** Sends a fresh token on the open connection, and calls `done` when the server answered. */
  refresh (token: string, done: () => void): void
  readonly failed: (error: ClientError) => void
}

/** Fetches tokens, and replaces the one of an open connection before it expires. */
export class Token {
  /** Whether the next attempt may get another token: the option is a callback. */
  readonly renewable: boolean
  readonly #source: () => unknown
  readonly #host: TokenHost
  #expiresAt = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  /** Counts connections: a token that was fetched for an earlier one is not sent on this one. */
  #round = 0

  constructor (source: ConnectOptions['token'], host: TokenHost) {
    this.renewable = typeof source === 'function'
    this.#source = this.renewable ? source as () => unknown : () => source
    this.#host = host
  }

  /** @throws {ClientError} TOKEN_FAILED */
  async fetch (): Promise<string | undefined> {
    try {
      // Not at once: the callback may close the client, which knows this attempt only when its constructor is done.
      await null
      const given = await this.#source()
      const { token, expiresAt = 0 }: Partial<ExpiringToken> = typeof given === 'string' ? { token: given } : given ?? {}
      this.#expiresAt = expiresAt
      if (token && !/^[\w!#$%&'*+.^`|~-]+$/.test(token)) throw new TypeError('no token')
      return token
    } catch (cause) {
      throw new ClientError('TOKEN_FAILED', `${cause as string}`, { cause })
    }
  }

  /** There is a connection with the latest token: replaces the token before it expires. */
  keepFresh (): void {
    this.stop()
    const leftMs = this.#expiresAt - Date.now()
    const delayMs = Math.max(leftMs * 0.8, leftMs - maxLeadMs, minRefreshMs)
    // Expired already, or NaN: this clock is wrong, or the callback is. The server will close with 4401 in time.
    if (leftMs > 0) this.#timer = setTimeout(() => { void this.#refresh(this.#round) }, Math.min(delayMs, maxTimerMs))
  }

  stop (): void {
    this.#round++
    clearTimeout(this.#timer)
  }

  async #refresh (round: number): Promise<void> {
    const token = await this.fetch().catch(this.#host.failed)
    if (round !== this.#round) return
    // Tries again after a failure of the callback, or a refusal by the server: the old token is valid for a while, and the fault may pass.
    const again = (): void => { if (round === this.#round) this.keepFresh() }
    if (token) this.#host.refresh(token, again)
    else again()
  }
}
