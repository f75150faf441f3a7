import { CloseCode } from '../../protocol/close-codes.ts'
import type { CheckDeadlines } from '../../deadline.ts'
import { hasCode, WebsocketGroupsError } from '../../errors.ts'
import type { Metrics } from '../../metrics.ts'
import type { ConnectionCallbacks } from '../../route-types.ts'
import { toError } from '../../thrown.ts'
import type { Identity } from '../../types.ts'
import type { InboundConnection } from '../inbound/message-queue.ts'

/** The checks of the route for the first token, repeated for later ones. Both functions throw only what a client may be told. */
export interface Reauthentication {
  /** Resolves with nothing when the token is invalid. */
  identify (token: string): Promise<Identity | undefined>
  /** Whether this identity may be on the route. */
  authorize (identity: Identity): Promise<boolean>
}

/** The part of a connection that the refresh of its token needs. */
export interface RefreshedConnection extends InboundConnection {
  renewIdentity (identity: Identity): void
}

/** The part of the route and of the instance that the refresh of a token needs. */
export interface RefreshInit {
  /** Whether the identity stands for the user of the connection. */
  isSameUser (connection: RefreshedConnection, identity: Identity): boolean
  renew (connection: RefreshedConnection, identity: Identity): void
  /** Takes the connection out of a group that its user may not be in any more. */
  putOut (connection: InboundConnection, group: string): Promise<boolean>
  /**
   * Whether the route, which put the connection into this group, would do so with the identity that the connection has now; `undefined`
   * when the route did not put it there.
   */
  readonly stillIn?: ((connection: InboundConnection, group: string) => boolean | undefined | Promise<boolean | undefined>) | undefined
  /** The deadline of each check of a membership. */
  readonly checks: CheckDeadlines
  readonly metrics: Pick<Metrics, 'tokensRefused' | 'timings' | 'tracing' | 'lines'>
}

/** The callbacks that decide, with the new identity, which groups the connection stays in. */
type Judges = Pick<ConnectionCallbacks, 'mayJoin' | 'mayStay'>

/** The most characters of a token: more than an HTTP header may have, which is where the first token came from. */
const maxTokenLength = 16_384
/**
 * How many refused tokens in a row close a connection: a client that asks its token service again succeeds sooner, one that guesses does
 * not.
 */
const maxRefused = 10

/** Takes fresh tokens of one connection, and checks again everything that the old identity allowed. */
export class TokenRefresh {
  readonly #connection: RefreshedConnection
  readonly #callbacks: Judges
  readonly #init: RefreshInit
  /** `undefined` on routes without auth. */
  readonly #reauthentication: Reauthentication | undefined
  /** Whether the client joined the group by itself. */
  readonly #joinedItself: (group: string) => boolean
  /** How many tokens were refused in a row. */
  #refused = 0

  constructor (
    connection: RefreshedConnection, callbacks: Judges, init: RefreshInit,
    reauthentication: Reauthentication | undefined, joinedItself: (group: string) => boolean
  ) {
    this.#reauthentication = reauthentication
    this.#connection = connection
    this.#callbacks = callbacks
    this.#init = init
    this.#joinedItself = joinedItself
  }

  /**
   * Resolves when the connection has the new identity, and has left the groups that it may not be in with it; also when the connection
   * closed meanwhile.
   * @throws what the client may be told
   */
  async refresh (token: string): Promise<void> {
    try {
      await this.#refresh(token)
      this.#refused = 0
    } catch (thrown) {
      const error = toError(thrown)
      if (hasCode(error, 'WSG_UNAUTHORIZED', 'WSG_FORBIDDEN')) this.#countRefusal()
      throw error
    }
  }

  async #refresh (token: string): Promise<void> {
    const reauthentication = this.#reauthentication
    const identity = token.length > maxTokenLength ? undefined : await reauthentication?.identify(token)
    if (reauthentication === undefined || identity === undefined) throw new WebsocketGroupsError('WSG_UNAUTHORIZED')
    if (this.#connection.closed) return
    if (!this.#init.isSameUser(this.#connection, identity)) return this.#connection.closeForFault(CloseCode.OtherUser)
    if (!await reauthentication.authorize(identity)) {
      // The route is no longer open to this user; the connection itself lives until its first token expires.
      await this.#putOut(this.#connection.groups)
      throw new WebsocketGroupsError('WSG_FORBIDDEN')
    }
    if (this.#connection.closed) return
    this.#init.renew(this.#connection, identity)
    const { groups } = this.#connection
    const fits = await Promise.all(groups.map(async group => await this.#fits(group)))
    await this.#putOut(groups.filter((_, index) => fits[index] === false))
  }

  /** Whether the connection may stay in the group with its new identity. A failed check counts as "no". */
  async #fits (group: string): Promise<boolean> {
    try {
      return await this.#init.checks.within(this.#judge(group), () => { throw new WebsocketGroupsError('WSG_AUTH_TIMEOUT') })
    } catch (error) {
      this.#init.metrics.lines.write(this.#connection.log, 'refresh_failed', { err: error, group })
      return false
    }
  }

  async #judge (group: string): Promise<boolean> {
    const byRoute = await this.#init.stillIn?.(this.#connection, group)
    if (byRoute !== undefined) return byRoute
    const { mayJoin, mayStay } = this.#callbacks
    if (this.#joinedItself(group)) return await mayJoin?.(this.#connection, group) === true
    // The application put the connection there, for a reason that this package does not know.
    return mayStay === undefined || await mayStay(this.#connection, group) === true
  }

  async #putOut (groups: readonly string[]): Promise<void> {
    await Promise.all(groups.map(async group => await this.#init.putOut(this.#connection, group)))
  }

  #countRefusal (): void {
    this.#init.metrics.tokensRefused++
    this.#refused++
    if (this.#refused < maxRefused || this.#connection.closed) return
    this.#init.metrics.lines.write(this.#connection.log, 'tokens_refused', { refused: this.#refused })
    this.#connection.closeForFault(CloseCode.TokenExpired, 'too many tokens were refused')
  }
}
