import { CloseCode } from '../protocol/close-codes.ts'
import { defaultBackoff } from './backoff.ts'
import { Connector } from './connector.ts'
import { Emitter } from './emitter.ts'
import { ClientError } from './errors.ts'
import { toPayload, type Frame } from './payload.ts'
import { Dispatcher } from './dispatcher.ts'
import { Joins } from './joins.ts'
import { Positions } from './positions.ts'
import { closed, SendQueue } from './send-queue.ts'
import { Token } from './token.ts'
import type { Ack, Address, ClientEvents, ConnectOptions, Data, Member, SendOptions, State, WebSocketClass } from './types.ts'

interface Saved { readonly session?: string, readonly positions?: Record<string, string> }

/** A connection to a route for as long as it is wanted: through breaks, deploys and sleep. */
export class Client extends Emitter<ClientEvents> {
  readonly #connector: Connector
  readonly #requests: SendQueue
  readonly #positions: Positions
  readonly #memberships: Joins
  readonly #inbox: Dispatcher
  readonly #storage: ConnectOptions['storage']
  readonly #storageKey: string
  #connectionId: string | undefined
  #session: string | undefined

  /** @throws {TypeError} for a URL that is none, for none at all, and where there is no WebSocket */
  constructor (address: Address, options: ConnectOptions) {
    super()
    const { location, WebSocket: native } = globalThis as { location?: { readonly href: string }, WebSocket?: WebSocketClass }
    const WebSocket = options.WebSocket ?? native
    const urls = [address].flat().map(one => new URL(one, location?.href).href.replace(/^http/, 'ws'))
    if (!urls[0] || !WebSocket) throw new TypeError('no address, or no WebSocket: give the option WebSocket')
    this.#storage = options.storage
    this.#storageKey = `wsg:${urls[0]}`
    const saved = this.#load()
    this.#session = options.session ?? saved.session
    this.#positions = new Positions(options.positions ?? saved.positions)
    this.#requests = new SendQueue(options.queue)

    const failed = (error: ClientError): void => this.#fail(error)
    this.#memberships = new Joins(this.#requests, this.#positions, {
      left: group => this.#inbox.forget(group),
      unavailable: error => this.#connector.drop(CloseCode.TryAgainLater, error.message),
      failed
    })
    this.#inbox = new Dispatcher(this.#positions, {
      tell: (name, event) => this.#tell(name, event),
      left: group => this.#memberships.lost(group)
    })
    const token = new Token(options.token, {
      refresh: (fresh, done) => this.#requests.ask({ type: 'token', token: fresh }, error => {
        done()
        if (error && error.code !== 'UNKNOWN_OUTCOME') failed(error)
      }, true),
      failed
    })
    this.#connector = new Connector({
      urls,
      WebSocket,
      protocols: options.protocols ?? [],
      timeoutMs: options.connectTimeoutMs ?? 15_000,
      reconnect: options.reconnect,
      ...defaultBackoff,
      ...options.backoff
    }, token, {
      hello: () => ({ session: this.#session, resume: this.#positions.resume(group => this.#memberships.has(group)) }),
      welcomed: ({ connectionId, session }, link) => {
        this.#connectionId = connectionId
        this.#session = session
        this.#inbox.joined.clear()
        this.#requests.attach(link, () => this.#memberships.joinAgain())
      },
      received: frame => this.#received(frame),
      broken: code => this.#requests.broken(code === CloseCode.PolicyViolation),
      changed: change => this.#tell('state', change),
      closed: end => {
        this.#save()
        this.#requests.close()
        this.#memberships.close()
        this.#tell('close', end)
      },
      failed,
      hidden: () => this.#save()
    })
  }

  get state (): State {
    return this.#connector.state
  }

  /** Of the latest connection; another one after each break. */
  get connectionId (): string | undefined {
    return this.#connectionId
  }

  /** The same through all breaks. */
  get session (): string | undefined {
    return this.#session
  }

  /** The groups that the server said this connection is in. */
  get groups (): string[] {
    return [...this.#inbox.joined]
  }

  /** How far this client got in each group: what `connect(url, { positions })` goes on from, after a page was loaded again say. */
  get positions (): Record<string, string> {
    return this.#positions.all()
  }

  /** Who is in the group, where the route has presence on. */
  members (group: string): Member[] {
    return this.#inbox.roster.members(group)
  }

  /**
   * Resolves when the route's `onMessage` is done with it. Waits, in order, while there is no connection. Rejects with a coded error: that
   * of `onMessage`, `QUEUE_FULL`, `CLOSED`, or `UNKNOWN_OUTCOME` when the connection broke in between.
   *
   * With `ack: false` nothing is promised: the message may be lost with the connection, and nobody is told.
   * @throws {TypeError} for data that cannot be sent
   */
  send (data: Data | ArrayBuffer, options: { readonly ack: false }): void
  send (data: Data | ArrayBuffer, options?: SendOptions & { readonly ack?: true }): Promise<Ack>
  send (data: Data | ArrayBuffer, options: SendOptions & { readonly ack?: boolean } = {}): Promise<Ack> | undefined {
    const payload = toPayload(data)
    if (options.ack !== false) return this.#requests.message(payload, options)
    if (!this.#requests.post(payload)) {
      this.#requests.message(payload, {}).catch((error: ClientError) => { if (error.code !== 'UNKNOWN_OUTCOME') this.#fail(error) })
    }
    return undefined
  }

  /** Joins the group, now and again after each break. Rejects with `WSG_FORBIDDEN` where the route does not allow it. */
  join (group: string, { since }: { readonly since?: string } = {}): Promise<void> {
    if (this.state === 'closed') return Promise.reject(closed())
    return this.#memberships.join(group, this.state === 'open', since)
  }

  /** A group that the route joins is left for this connection alone: after a break the route joins it again. */
  leave (group: string): Promise<void> {
    return this.#memberships.leave(group, this.state === 'open')
  }

  /** For good: nothing is left behind. What waits is rejected with `CLOSED`. The code is 1000, or from 3000 to 4999. */
  close (code: number = CloseCode.Normal, reason = ''): void {
    this.#connector.close(code, reason)
  }

  #received (frame: Frame): void {
    if (frame.type === 'ack') {
      this.#requests.answer(frame.id, frame)
    } else if (frame.type === 'error') {
      const error = new ClientError(frame.code, frame.message)
      if (!this.#requests.answer(frame.id, {}, error)) this.#fail(error)
    } else if (frame.type === 'reconnect') {
      // What is sent now may not be handled any more; it waits for the next connection.
      this.#requests.hold()
      this.#connector.comeBack(frame.afterMs)
    } else {
      this.#inbox.receive(frame)
    }
  }

  /** Returns whether anybody listens. */
  #tell<Name extends keyof ClientEvents> (name: Name, event: ClientEvents[Name]): boolean {
    return this.emit(name, event, cause => {
      // As with any event's handler that throws, the last resort of the page, or of the process, hears of it when nobody else does.
      if (name === 'error' || !this.#tell('error', new ClientError('HANDLER_FAILED', `a handler of '${name}' threw`, { cause }))) queueMicrotask(() => { throw cause })
    })
  }

  #fail (error: ClientError): void {
    this.#tell('error', error)
  }

  #load (): Saved {
    try {
      return JSON.parse(this.#storage?.getItem(this.#storageKey) ?? 'null') as Saved | null ?? {}
    } catch {
      return {} // unreadable, or not allowed: as if there were none
    }
  }

  #save (): void {
    try {
      this.#storage?.setItem(this.#storageKey, JSON.stringify({ session: this.#session, positions: this.positions }))
    } catch {
      // Full, or not allowed: a later page starts without.
    }
  }
}
