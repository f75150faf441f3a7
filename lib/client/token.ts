import { maxTimerMs } from './backoff.ts'
import { ClientError } from './errors.ts'
import type { ConnectOptions, ExpiringToken } from './types.ts'

/** A token is refreshed after four fifths of its time, and no earlier than this before its end. */
const maxLeadMs = 30_000
const minRefreshMs = 1_000

export interface TokenHost {
  /** Sends a fresh token on the connection that there is; `done` is called when the server answered. */
  refresh (token: string, done: () => void): void
  failed (error: ClientError): void
}

/** Where tokens come from, and when the next one is due. */
export class Token {
  /** Another one can be had. */
  readonly renewable: boolean
  readonly #source: ConnectOptions['token']
  readonly #host: TokenHost
  #expiresAt = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  /** Counts connections: what was asked for on an earlier one is not sent on this one. */
  #round = 0

  constructor (source: ConnectOptions['token'], host: TokenHost) {
    this.#source = source
    this.#host = host
    this.renewable = typeof source === 'function'
  }

  /** @throws {ClientError} TOKEN_FAILED */
  async fetch (): Promise<string | undefined> {
    try {
      // The callback may close the client, which has to know of this attempt then.
      await null
      const given = typeof this.#source === 'function' ? await this.#source() : this.#source
      const { token, expiresAt = 0 }: Partial<ExpiringToken> = typeof given === 'string' ? { token: given } : given ?? {}
      this.#expiresAt = expiresAt
      return token
    } catch (cause) {
      throw new ClientError('TOKEN_FAILED', 'no token', { cause })
    }
  }

  /** From now on there is a connection with the latest token, which is replaced before it expires. */
  keepFresh (): void {
    this.stop()
    const leftMs = this.#expiresAt - Date.now()
    // Over already: this clock is wrong, or the callback. The server will say when (4401).
    if (leftMs > 0) this.#timer = setTimeout(() => { void this.#refresh(this.#round) }, Math.min(Math.max(leftMs * 0.8, leftMs - maxLeadMs, minRefreshMs), maxTimerMs))
  }

  stop (): void {
    this.#round++
    clearTimeout(this.#timer)
  }

  async #refresh (round: number): Promise<void> {
    let token
    try {
      token = await this.fetch()
    } catch (error) {
      this.#host.failed(error as ClientError)
    }
    if (round !== this.#round) return
    // Also without a token, or when the server did not take it: the old one lives for a while, and what failed may pass.
    const again = (): void => { if (round === this.#round) this.keepFresh() }
    if (token) this.#host.refresh(token, again)
    else again()
  }
}
