import { CloseCode } from '../protocol/close-codes.ts'
import { Connector } from './connector.ts'
import { Emitter } from './emitter.ts'
import { ClientError } from './errors.ts'
import { fromPayload, toPayload, type Frame } from './payload.ts'
import { Dispatcher } from './dispatcher.ts'
import { Joins } from './joins.ts'
import { maxBackoffMs, minBackoffMs } from './limits.ts'
import { Positions } from './positions.ts'
import { quiet, SendQueue } from './send-queue.ts'
import { TabLock } from './tab-lock.ts'
import { Token } from './token.ts'
import { userLogLabel } from '../protocol/frames.ts'
import type {
  Ack, Address, ClientEvents, ConnectOptions, HistoryPage, HistoryQuery, Member, Sendable, SendOptions, State, WebSocketClass
} from './types.ts'

interface Saved { readonly session?: string, readonly positions?: Record<string, string> }

/** A connection to a route that lasts until `close()`, through breaks, deploys and sleep. */
export class Client extends Emitter<ClientEvents> {
  readonly #connector: Connector
  readonly #sendQueue: SendQueue
  readonly #positions: Positions
  readonly #joins: Joins
  readonly #dispatcher: Dispatcher
  readonly #storage: ConnectOptions['storage']
  readonly #storageKey: string
  readonly #lock = new TabLock()
  readonly #keep: ConnectOptions['keep']
  /**
   * Reports the failure of a call that nobody awaits. An answer that was lost with its connection is no failure: the state tells of the
   * break.
   */
  readonly #fail = (error: ClientError): void => { if (error.code !== 'UNKNOWN_OUTCOME') this.#tell('error', error) }
  #connectionId: string | undefined
  #session: string | undefined

  /** @throws {TypeError} for an invalid URL or an empty list, and where there is no WebSocket */
  constructor (address: Address, options: ConnectOptions) {
    super()
    const { location, WebSocket: native } = globalThis as { location?: { readonly href: string }, WebSocket?: WebSocketClass }
    const WebSocket = options.WebSocket ?? native
    // Drop the fragment: it is no part of a request, and every WebSocket class refuses it.
    const urls = [address].flat().map(one => new URL(one, location?.href).href.replace(/^http/, 'ws').replace(/#.*/, ''))
    if (!WebSocket || !urls[0] || urls.some(url => !/^wss?:/.test(url))) {
      throw new TypeError(`pass the option WebSocket or another address: ${urls}`)
    }
    this.#storage = options.storage
    this.#keep = options.keep
    this.#storageKey = `wsg:${urls[0]}`
    const saved = this.#load()
    this.#session = options.session ?? saved.session
    const copied = !options.session && saved.session
    this.#positions = new Positions(options.positions ?? (this.#keep === 'session' ? {} : saved.positions ?? {}))
    this.#sendQueue = new SendQueue(options.queue)

    this.#joins = new Joins(this.#sendQueue, this.#positions, {
      left: group => this.#dispatcher.forget(group),
      unavailable: error => this.#connector.drop(CloseCode.TryAgainLater, error.message),
      failed: this.#fail
    })
    this.#dispatcher = new Dispatcher(this.#positions, {
      tell: (name, event) => this.#tell(name, event),
      left: group => this.#joins.lost(group)
    })
    const token = new Token(options.token, {
      refresh: (fresh, done) => this.#sendQueue.ask({ type: 'token', token: fresh }, error => {
        done()
        if (error) this.#fail(error)
      }, true),
      failed: this.#fail
    })
    this.#connector = new Connector({
      urls,
      WebSocket,
      protocols: options.protocols ?? [],
      limitMs: options.connectTimeoutMs ?? 15_000,
      reconnect: end => {
        try {
          return options.reconnect?.(end)
        } catch (cause) {
          this.#threw('reconnect', cause)
        }
      },
      // Before the first hello, which names the session.
      ready: copied && this.#lock.take(copied).then(isFree => { if (!isFree) this.#session = undefined }),
      minMs: minBackoffMs,
      maxMs: maxBackoffMs,
      ...options.backoff
    }, token, {
      hello: () => ({ session: this.#session, json: options.json, ...this.#positions.offer(group => this.#joins.has(group)) }),
      welcomed: ({ connectionId, session }, attempt) => {
        this.#connectionId = connectionId
        this.#session = session
        if (this.#storage) void this.#lock.take(session)
        this.#dispatcher.joined.clear()
        this.#sendQueue.attach(attempt, () => this.#joins.joinAgain())
      },
      received: frame => this.#received(frame),
      broken: code => this.#sendQueue.broken(code === CloseCode.PolicyViolation),
      changed: change => this.#tell('state', change),
      closed: end => {
        this.#save()
        this.#lock.release()
        this.#sendQueue.close()
        this.#joins.close()
        this.#tell('close', end)
      },
      failed: this.#fail,
      hidden: gone => {
        this.#save()
        // The back/forward cache takes no page that holds a lock.
        if (gone) this.#lock.release()
      }
    })
  }

  get state (): State {
    return this.#connector.state
  }

  /** The id of the latest connection: another one after each break. */
  get connectionId (): string | undefined {
    return this.#connectionId
  }

  /** The secret name of the session: the same through all breaks. */
  get session (): string | undefined {
    return this.#session
  }

  /** The groups that the server said this connection is in. */
  get groups (): string[] {
    return [...this.#dispatcher.joined].filter(group => group !== userLogLabel)
  }

  /** The position that this client reached in each group. After a reload, `connect(url, { positions })` goes on from there. */
  get positions (): Record<string, string> {
    return this.#positions.all()
  }

  /** The members of the group, where the route has presence on: the same array as long as nothing changes. */
  members (group: string): readonly Member[] {
    return this.#dispatcher.roster.members(group)
  }

  /**
   * Sends a message; resolves when the route's `onMessage` is done with it. While there is no connection the message waits its turn.
   * Rejects with a `ClientError`: the code is that of the error of `onMessage`, `QUEUE_FULL`, `CLOSED`, or `UNKNOWN_OUTCOME` when the
   * connection broke before the answer.
   *
   * With `ack: false` it returns nothing: the message may be lost with the connection, and nobody is told.
   * @throws {TypeError} for anything but a string, a Uint8Array, an ArrayBuffer or `{ json }`
   */
  send (data: Sendable, options: { readonly ack: false }): void
  send (data: Sendable, options?: SendOptions & { readonly ack?: true | undefined }): Promise<Ack>
  send (data: Sendable, options: SendOptions & { readonly ack?: boolean | undefined } = {}): Promise<Ack> | undefined {
    const payload = toPayload(data)
    if (options.ack !== false) return this.#sendQueue.message(payload, options)
    if (!this.#sendQueue.post(payload)) this.#sendQueue.message(payload, {}).catch(this.#fail)
    return undefined
  }

  /**
   * Joins the group, now and again after each break; `since` is the position to resume from, and `history`
   * how many of the latest messages come first, where the route allows it. Rejects with `WSG_FORBIDDEN` where the route
   * does not allow it, with `LEFT` when the group is left before the answer, and with `CLOSED`.
   */
  join (
    group: string, { since, history }: { readonly since?: string | undefined, readonly history?: number | undefined } = {}
  ): Promise<void> {
    // A closed client asks at once, too: its queue refuses whatever it is asked.
    return this.#joins.join(group, /open|closed/.test(this.state), since, history)
  }

  /**
   * Reads what was sent to the group, where the route allows it: at most 1,000 messages at once. Rejects with `WSG_FORBIDDEN` elsewhere,
   * with `UNKNOWN_OUTCOME` when the connection broke, and with `CLOSED`.
   */
  history (group: string, query: HistoryQuery = {}): Promise<HistoryPage> {
    return quiet(new Promise((resolve, reject) => {
      this.#sendQueue.ask({ type: 'history', group, ...query }, (error, { messages = [], position = '', gap, more = false }) => {
        if (error) return reject(error)
        resolve({ messages: messages.map(message => ({ ...message, data: fromPayload(message) })), position, gap, more })
      })
    }))
  }

  /**
   * Leaves the group, when it was called as often as `join`. A group that the route joined is joined again after a break. Rejects with
   * `WSG_FORBIDDEN` where the route does not allow it.
   */
  leave (group: string): Promise<void> {
    return this.#joins.leave(group, this.state === 'open')
  }

  /** Closes the client for good. Messages that wait are rejected with `CLOSED`. The code is 1000, or from 3000 to 4999. */
  close (code: number = CloseCode.Normal, reason = ''): void {
    this.#connector.close(code, reason)
  }

  #received (frame: Frame): void {
    if (frame.type === 'ack' || frame.type === 'history') {
      this.#sendQueue.receive(frame.id, frame)
    } else if (frame.type === 'error') {
      const error = new ClientError(frame.code, frame.message, { details: frame.details })
      if (!this.#sendQueue.receive(frame.id, {}, error)) this.#fail(error)
    } else if (frame.type === 'reconnect') {
      // The server may no longer handle what is sent now: messages wait for the next connection.
      this.#sendQueue.hold()
      this.#connector.comeBack(frame.afterMs)
    } else {
      this.#dispatcher.receive(frame)
    }
  }

  /** Returns whether anybody listens. */
  #tell<Name extends keyof ClientEvents> (name: Name, event: ClientEvents[Name]): boolean {
    return this.dispatch(name, event, cause => this.#threw(name, cause))
  }

  #threw (name: string, cause: unknown): void {
    const isHeard = name !== 'error' && this.#tell('error', new ClientError('HANDLER_FAILED', `a handler of '${name}' threw`, { cause }))
    // When nobody listens for errors it is an uncaught one, as with any event.
    if (!isHeard) queueMicrotask(() => { throw cause })
  }

  #load (): Saved {
    try {
      return JSON.parse(this.#storage?.getItem(this.#storageKey) ?? '{}') as Saved | null ?? {}
    } catch {
      return {} // unreadable, or the storage may not be used: start without
    }
  }

  #save (): void {
    try {
      this.#storage?.setItem(this.#storageKey, JSON.stringify({
        session: this.#session, ...this.#keep !== 'session' && { positions: this.positions }
      }))
    } catch {
      // The storage is full, or may not be used: a later page starts without.
    }
  }
}
