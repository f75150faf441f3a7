import { CloseCode } from '../protocol/close-codes.ts'
import { backoffMs } from './backoff.ts'
import { ClientError } from './errors.ts'
import { ConnectionAttempt, noWelcome, silence, type AttemptHost, type AttemptOptions } from './attempt.ts'
import { maxPatience, maxTimerMs, maxUnwelcomed, stableMs } from './limits.ts'
import { online, watch } from './page-events.ts'
import type { Token } from './token.ts'
import type { Closed, ConnectOptions, State, StateChange } from './types.ts'

interface ConnectorOptions extends AttemptOptions, Required<Pick<ConnectOptions, 'reconnect'>> {
  readonly urls: readonly string[]
  readonly minMs: number
  readonly maxMs: number
}

interface ConnectorHost extends Pick<AttemptHost, 'hello' | 'welcomed' | 'received' | 'failed'> {
  /** The connection, or the attempt, is over. `changed` is called next. */
  broken (code: number): void
  changed (change: StateChange): void
  closed (closed: Closed): void
  /** The page may be gone after this. */
  hidden (gone: boolean): void
}

/**
 * Keeps one connection up until it is closed.
 *
 *   connecting -> open       the server said welcome
 *   connecting -> waiting    the attempt failed
 *   open       -> waiting    the connection broke, was closed by the server or gave no sign of life
 *   waiting    -> connecting the wait is over; or the network or the page is back
 *   connecting, open, waiting -> offline   as to waiting, when the browser says that there is no network
 *   offline    -> connecting the browser says that there is one again, or after `maxMs`: browsers err
 *   any        -> closed     `close()` on either side, or a refusal for good
 */
export class Connector {
  state: State = 'connecting'
  readonly #options: ConnectorOptions
  readonly #host: ConnectorHost
  readonly #attemptHost: AttemptHost
  readonly #token: Token
  readonly #unwatch: () => void
  #attempt: ConnectionAttempt | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  /** Counts the attempts on, to find the next address. */
  #nextUrl: number
  /** Attempts and connections that failed since the last one that held. */
  #failures = 0
  #openedAt = Infinity
  /** Connections that got no welcome, as long as none ever got one. */
  #unwelcomed = 0
  /** Answers on the next connection may take this many times as long as usual. */
  #patience = 1
  /** The wait that the server asked for in its `reconnect` frame. */
  #afterMs: number | undefined
  #notBefore = 0

  constructor (options: ConnectorOptions, token: Token, host: ConnectorHost) {
    this.#options = options
    this.#host = host
    this.#token = token
    this.#attemptHost = {
      ...host,
      token: () => token.fetch(),
      welcomed: (frame, attempt) => {
        this.#openedAt = Date.now()
        this.#unwelcomed = -Infinity
        token.keepFresh()
        host.welcomed(frame, attempt)
        this.#enter('open')
      },
      comeBack: afterMs => this.comeBack(afterMs),
      lost: (code, reason, error) => this.#lost(code, reason, error)
    }
    this.#unwatch = watch({
      wake: () => {
        this.#attempt?.probe()
        // A server that shuts down spreads its clients over time, and all of them may wake at the same moment.
        if (!this.#attempt && Date.now() >= this.#notBefore) this.#connect()
      },
      offline: () => {
        // The browser may err, or the network only changes: ask the connection itself.
        this.#attempt?.probe()
        if (!this.#attempt) this.#wait(Math.max(options.maxMs, this.#notBefore - Date.now()))
      },
      hide: gone => {
        host.hidden(gone)
        // The back/forward cache takes no page that has an open socket.
        if (gone) this.#attempt?.drop(CloseCode.GoingAway, 'hidden')
      }
    })
    this.#nextUrl = Math.floor(Math.random() * options.urls.length)
    this.#attempt = this.#dial()
  }

  /** Gives the connection up and tries again. */
  drop (code: number, reason: string): void {
    this.#attempt?.drop(code, reason)
  }

  /** The server closes the connection, or took none: come back after this time. */
  comeBack (afterMs: number): void {
    if (afterMs >= 0 && afterMs <= maxTimerMs) this.#afterMs = afterMs
    // No server of this protocol names such a time: the client would come back without a pause, or never.
    else this.#attempt?.drop(CloseCode.BadFrame, `afterMs ${afterMs}`)
  }

  close (code: number, reason: string): void {
    this.#attempt?.close(code, reason)
    this.#finish(code, reason)
  }

  #connect (): void {
    clearTimeout(this.#timer)
    this.#attempt = this.#dial()
    this.#enter('connecting')
  }

  #dial (): ConnectionAttempt {
    const options = this.#options
    return new ConnectionAttempt(options.urls[this.#nextUrl++ % options.urls.length] as string, options, this.#attemptHost, this.#patience)
  }

  #lost (code: number, reason: string, error?: ClientError): void {
    // Lost before the server answered a single ping: a large message may have been on its way, which will come again.
    this.#patience = reason === silence && !this.#attempt?.answered ? Math.min(this.#patience * 2, maxPatience) : 1
    this.#attempt = undefined
    if (Date.now() - this.#openedAt >= stableMs) this.#failures = 0
    this.#openedAt = Infinity
    this.#token.stop()
    this.#host.broken(code)
    const status = error?.status
    if (reason === noWelcome && ++this.#unwelcomed >= maxUnwelcomed) error = new ClientError('PROTOCOL_UNSUPPORTED', reason)
    const failure = error?.code
    // Another attempt would fail alike.
    if (failure === 'PROTOCOL_UNSUPPORTED' || failure === 'ADDRESS_UNUSABLE' || (failure === 'TOKEN_FAILED' && !this.#token.renewable)) {
      return this.#finish(code, reason, { error })
    }
    if (this.#isRefused(code, status) || !(this.#options.reconnect({ code, reason }) ?? code !== CloseCode.Normal)) {
      // After 1000 the server is done with this client: it refuses nothing.
      return this.#finish(code, reason, code !== CloseCode.Normal && {
        error: new ClientError('REFUSED', `refused: ${status ?? code} ${reason}`, { closeCode: code, status })
      })
    }
    // The option `reconnect` may have closed the client.
    if (this.state === 'closed') return
    const { maxMs } = this.#options
    // The server is up, and only this client comes back: no wait, unless it happens again.
    const atOnce = !this.#failures && (code === CloseCode.TokenExpired || reason === silence)
    let delayMs = atOnce ? 0 : backoffMs(this.#failures, this.#options)
    this.#failures++
    if (this.#afterMs !== undefined) {
      // A little later than the server asked for: it spreads its clients, and this spreads them further.
      delayMs = this.#afterMs * (1 + Math.random() / 4)
      this.#notBefore = Date.now() + delayMs
      this.#afterMs = undefined
    }
    this.#wait(Math.max(delayMs, online() ? 0 : maxMs), code, reason)
    // A handler of the state may have closed it as well.
    if (error && (this.state as State) !== 'closed') this.#host.failed(error)
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
    if (this.state === 'closed') return
    this.#attempt = undefined
    clearTimeout(this.#timer)
    this.#token.stop()
    this.#unwatch()
    this.#enter('closed', { code, reason })
    this.#host.closed({ code, reason, ...error })
  }

  #enter (state: State, details?: Omit<StateChange, 'state' | 'previous'>): void {
    const previous = this.state
    this.state = state
    this.#host.changed({ state, previous, ...details })
  }
}
