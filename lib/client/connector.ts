import { CloseCode } from '../protocol/close-codes.ts'
import type { WelcomeFrame } from '../protocol/frames.ts'
import { backoffMs, maxTimerMs } from './backoff.ts'
import { ClientError } from './errors.ts'
import { ConnectionAttempt, silence, type AttemptHost, type AttemptOptions } from './attempt.ts'
import { online, watch } from './page-events.ts'
import type { Token } from './token.ts'
import type { Closed, ConnectOptions, State, StateChange } from './types.ts'

/** A connection that held for this long starts the back-off anew. */
const stableMs = 5_000

export interface ConnectorOptions extends AttemptOptions, Pick<ConnectOptions, 'reconnect'> {
  readonly urls: readonly string[]
  readonly minMs: number
  readonly maxMs: number
}

export interface ConnectorHost extends Pick<AttemptHost, 'hello' | 'received' | 'failed'> {
  /** The server answered; `changed` comes next. */
  welcomed (frame: WelcomeFrame, link: ConnectionAttempt): void
  /** The connection, or the attempt, is over; `changed` comes next. */
  broken (code: number): void
  changed (change: StateChange): void
  closed (closed: Closed): void
  /** The page may be gone after this. */
  hidden (): void
}

/**
 * Keeps one link up, for as long as it is wanted.
 *
 *   connecting -> open       the server said welcome
 *   connecting -> waiting    the attempt failed
 *   open       -> waiting    the connection broke, was closed by the server or gave no sign of life
 *   waiting    -> connecting the wait is over; or the network or the page is back
 *   connecting, open, waiting -> offline   as waiting, where the browser says that there is no network
 *   offline    -> connecting the browser says that there is one; or after `maxMs`, as it may be wrong
 *   any        -> closed     `close()`, by this side or the server's, or a refusal for good
 */
export class Connector {
  readonly #options: ConnectorOptions
  readonly #host: ConnectorHost
  readonly #linkHost: AttemptHost
  readonly #token: Token
  readonly #unwatch: () => void
  #state: State = 'connecting'
  #link: ConnectionAttempt | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  /** Which address is next. */
  #turn: number
  /** Since the last connection that held. */
  #failures = 0
  #openedAt = Infinity
  /** What the server asked for in `reconnect`. */
  #afterMs: number | undefined
  #notBefore = 0

  constructor (options: ConnectorOptions, token: Token, host: ConnectorHost) {
    this.#options = options
    this.#host = host
    this.#token = token
    this.#linkHost = {
      ...host,
      token: () => token.fetch(),
      welcomed: frame => {
        this.#openedAt = Date.now()
        token.keepFresh()
        if (this.#link) host.welcomed(frame, this.#link)
        this.#enter('open')
      },
      lost: (code, reason, error) => this.#lost(code, reason, error)
    }
    this.#unwatch = watch({
      wake: () => {
        this.#link?.probe()
        // Not before a server that shuts down wants its clients back: its herd would be awake too.
        if (!this.#link && Date.now() >= this.#notBefore) this.#connect()
      },
      offline: () => {
        // The browser may be wrong, or the network only changes: the connection itself is asked.
        this.#link?.probe()
        if (!this.#link) this.#wait(options.maxMs)
      },
      hide: gone => {
        host.hidden()
        // A page that keeps a socket open cannot enter the back/forward cache.
        if (gone) this.#link?.drop(CloseCode.GoingAway, 'hidden')
      }
    })
    this.#turn = Math.floor(Math.random() * options.urls.length)
    this.#link = this.#dial()
  }

  get state (): State {
    return this.#state
  }

  /** Gives the connection up, and tries again. */
  drop (code: number, reason: string): void {
    this.#link?.drop(code, reason)
  }

  /** The server is about to close, and says when to come back. */
  comeBack (afterMs: number): void {
    this.#afterMs = afterMs
  }

  close (code: number, reason: string): void {
    this.#link?.close(code, reason)
    this.#finish(code, reason)
  }

  #connect (): void {
    clearTimeout(this.#timer)
    this.#link = this.#dial()
    this.#enter('connecting')
  }

  #dial (): ConnectionAttempt {
    const { urls } = this.#options
    return new ConnectionAttempt(urls[this.#turn++ % urls.length] as string, this.#options, this.#linkHost)
  }

  #lost (code: number, reason: string, error?: ClientError): void {
    this.#link = undefined
    if (Date.now() - this.#openedAt >= stableMs) this.#failures = 0
    this.#openedAt = Infinity
    this.#token.stop()
    this.#host.broken(code)
    const status = error?.status
    if (this.#isRefused(code, status) || !(this.#options.reconnect?.({ code, reason }) ?? code !== CloseCode.Normal)) {
      // Said good-bye to is not refused.
      return this.#finish(code, reason, code !== CloseCode.Normal && { error: new ClientError('REFUSED', `refused: ${status ?? code} ${reason}`, { closeCode: code, status }) })
    }
    // By `reconnect` itself.
    if (this.#state === 'closed') return
    const { maxMs } = this.#options
    // The server is fine, and no herd is to be feared: no wait, unless it happens again.
    const atOnce = !this.#failures && (code === CloseCode.TokenExpired || reason === silence)
    let delayMs = atOnce ? 0 : backoffMs(this.#failures, this.#options)
    this.#failures++
    if (this.#afterMs !== undefined) {
      // The server spreads its clients over time; a little more of it does no harm.
      delayMs = this.#afterMs * (1 + Math.random() / 4)
      this.#notBefore = Date.now() + delayMs
      this.#afterMs = undefined
    }
    this.#wait(online() ? delayMs : maxMs, code, reason)
    if (error && this.state !== 'closed') this.#host.failed(error)
  }

  #wait (delayMs: number, code?: number, reason?: string): void {
    clearTimeout(this.#timer)
    const retryInMs = Math.min(Math.round(delayMs), maxTimerMs)
    this.#timer = setTimeout(() => this.#connect(), retryInMs)
    this.#enter(online() ? 'waiting' : 'offline', { retryInMs, code, reason })
  }

  #isRefused (code: number, status: number | undefined): boolean {
    return code === CloseCode.BadFrame || code === CloseCode.OtherUser || status === 400 || status === 403 ||
      ((status === 401 || code === CloseCode.TokenExpired) && !this.#token.renewable)
  }

  #finish (code: number, reason: string, error?: Pick<Closed, 'error'> | false): void {
    if (this.#state === 'closed') return
    this.#link = undefined
    clearTimeout(this.#timer)
    this.#token.stop()
    this.#unwatch()
    this.#enter('closed', { code, reason })
    this.#host.closed({ code, reason, ...error })
  }

  #enter (state: State, details?: Omit<StateChange, 'state' | 'previous'>): void {
    const previous = this.#state
    this.#state = state
    this.#host.changed({ state, previous, ...details })
  }
}
