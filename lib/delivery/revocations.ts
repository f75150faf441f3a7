import { setTimeout as wait } from 'node:timers/promises'
import type { Backplane, LogPosition, Revocation } from '../backplane/backplane.ts'
import { logStart } from '../backplane/position.ts'
import { BoundedMap } from '../bounded-map.ts'
import type { LocalConnection } from '../connection/connection.ts'
import { hasCode, isOutageOrClosed } from '../errors.ts'
import { maxTtlMs, type GroupLogs } from '../options/group-logs.ts'
import { userOfLog } from '../backplane/user-log.ts'
import type { ResumeProofs } from './resume-proofs.ts'

/*
 * A client that is put out of a group keeps the positions and the grant that it was given there. If it is let in again, these must not lead
 * to messages that were sent in between. So this class remembers who was put out, when, and how far the log was: a grant from before that
 * time, and a position up to there, prove nothing any more. Nothing is read or written per message: a write when somebody is put out, a
 * read when somebody names a position.
 *
 * Clients of the framed protocol are remembered by their session, which only their own grant proves, and all clients by their user: a
 * client without a grant is judged by what happened to any connection of its user. Raw clients without a user id cannot be told apart.
 */

/** How long a revocation is remembered at least. */
const leastMs = 86_400_000
/** Stands for all groups: whoever is put out of it was blocked, and may have been away from any group. No group has this name. */
export const everyGroup = ''
/** How many revocations this instance remembers by itself, also while the backplane is out. */
const maxOwn = 20_000
const retryMs = 250
const maxRetryMs = 4_000
/** How often the backplane is asked when it works but does not answer in time. */
const attempts = 3

/** Who is put out: one connection, or all that its user has, here or elsewhere, and those that were away. */
export type Scope = 'connection' | 'user'

/** What the proofs of a client are worth. */
export interface Standing {
  /** Since which position it was in the group without a break, as far as it can prove that. */
  readonly floor?: LogPosition | undefined
  /** When it was put out of the group last; `unknown`: nobody can say now. */
  readonly revoked?: Revocation | 'unknown' | undefined
}

interface Unsaved {
  readonly group: string
  readonly names: readonly string[]
  readonly revocation: Revocation
  readonly forMs: number
}

type LogsAndRevocations = Pick<Backplane, 'revoke' | 'revoked' | 'position' | 'history' | 'now'>
type Client = Pick<LocalConnection, 'userId' | 'sessionName'>

export class Revocations {
  readonly #backplane: LogsAndRevocations
  readonly #logs: GroupLogs
  readonly #failed: (error: unknown) => void
  readonly #own = new BoundedMap<string, Revocation>({ maxWeight: maxOwn })
  /** What the backplane does not know yet. */
  readonly #unsaved = new BoundedMap<string, Unsaved>({ maxWeight: maxOwn })
  #saving: Promise<void> | undefined
  #closed = false

  /** `failed` is called with errors of the backplane other than an outage. */
  constructor (backplane: LogsAndRevocations, logs: GroupLogs, failed: (error: unknown) => void) {
    this.#backplane = backplane
    this.#logs = logs
    this.#failed = failed
  }

  /**
   * The time by the clock that all instances share, or by a steady one of this process (milliseconds since 1970): a machine whose clock is
   * set back would let in those who were put out before.
   */
  now (): number {
    return this.#backplane.now?.() ?? Math.round(performance.timeOrigin + performance.now())
  }

  /**
   * Remembers that the client is put out of the group. Called before the client leaves: until then the position of the group is known.
   * Resolves when the backplane has it, or could not take it yet and is asked again later; never rejects.
   */
  async add (client: Client, group: string, scope: Scope, position = this.#backplane.position(group)): Promise<void> {
    if (!this.#logs.has(group)) return
    await this.#remember(group, namesOf(client, scope), position, revocationMs(this.#logs, group))
  }

  /** As `add`, for all connections of the user, also for those that are away. */
  async addUser (userId: string, group: string): Promise<void> {
    if (!this.#logs.has(group)) return
    const position = this.#backplane.position(group) ?? await this.#endOf(group)
    await this.add({ userId, sessionName: undefined }, group, 'user', position)
  }

  /**
   * As `add`, for all groups: the user is blocked for that long, and messages sent meanwhile are not for the user's clients that are away.
   */
  async addBlocked (userId: string, forMs: number): Promise<void> {
    await this.#remember(everyGroup, namesOfUser(userId), undefined, blockRevocationMs(forMs))
  }

  /** Gives up what the backplane does not know yet, and what is added by calls that are still under way. */
  close (): void {
    this.#closed = true
    this.#unsaved.clear()
  }

  /** What the client proves by a position and a grant. */
  async judge (proofs: ResumeProofs, client: Client, group: string, since: string, grant: string | undefined): Promise<Standing> {
    const granted = proofs.granted(group, client.sessionName, grant)
    const start = proofs.isSealedStart(group, since) ? logStart : undefined
    const revoked = await this.#latest(group, granted === undefined ? [userName(client)] : namesOfGranted(client), client.userId)
    if (revoked === undefined) return { floor: granted?.position ?? start }
    if (revoked === 'unknown' || granted === undefined) return { revoked }
    return granted.at > revoked.at ? { floor: granted.position, revoked } : { revoked }
  }

  /** The latest of what is remembered of these names in the group, and of the user in all groups. */
  async #latest (group: string, names: readonly string[], userId: string | undefined): Promise<Revocation | 'unknown' | undefined> {
    // Nobody is put out of the log of a user.
    if (userOfLog(group) !== undefined) return undefined
    const found = await Promise.all([
      this.#latestOf(group, names),
      ...userId === undefined ? [] : [this.#latestOf(everyGroup, [wholeUserName(userId)])]
    ])
    return found.includes('unknown') ? 'unknown' : latestIn(found as ReadonlyArray<Revocation | undefined>)
  }

  async #latestOf (group: string, names: readonly string[]): Promise<Revocation | 'unknown' | undefined> {
    const own = names.map(name => this.#own.get(key(group, name)))
    for (let attempt = 1; ; attempt++) {
      try {
        return latestIn([...own, await this.#backplane.revoked?.(group, names)])
      } catch (error) {
        if (hasCode(error, 'WSG_TIMEOUT') && attempt < attempts) continue
        if (!isOutageOrClosed(error)) this.#failed(error)
        return 'unknown'
      }
    }
  }

  /** Here, and in the backplane as soon as that is possible. */
  async #remember (group: string, names: readonly string[], position: LogPosition | undefined, forMs: number): Promise<void> {
    if (names.length === 0) return
    const revocation = { at: this.now(), position }
    for (const name of names) this.#own.set(key(group, name), revocation)
    if (this.#backplane.revoke === undefined || this.#closed) return
    const unsaved = { group, names, revocation, forMs }
    this.#unsaved.set(key(group, names.join()), unsaved)
    if (await this.#save(unsaved)) return
    this.#saving ??= this.#saveLater()
  }

  /** Never rejects. */
  async #endOf (group: string): Promise<LogPosition | undefined> {
    try {
      return (await this.#backplane.history(group, undefined, 1)).end
    } catch (error) {
      if (!isOutageOrClosed(error)) this.#failed(error)
      return undefined
    }
  }

  /** Returns whether nothing is left to do about it. */
  async #save (unsaved: Unsaved): Promise<boolean> {
    const { group, names, revocation, forMs } = unsaved
    try {
      await this.#backplane.revoke?.(group, names, revocation, forMs)
    } catch (error) {
      if (isOutageOrClosed(error)) return false
      this.#failed(error)
    }
    if (this.#unsaved.get(key(group, names.join())) === unsaved) this.#unsaved.delete(key(group, names.join()))
    return true
  }

  /** Tries again until the backplane has all revocations. */
  async #saveLater (): Promise<void> {
    let pauseMs = retryMs
    do {
      await wait(pauseMs, undefined, { ref: false })
      for (const [, unsaved] of [...this.#unsaved]) if (!await this.#save(unsaved)) break
      pauseMs = Math.min(maxRetryMs, 2 * pauseMs)
    } while (this.#unsaved.size > 0)
    // Not a microtask later: one that fails in between would wait for the next that fails.
    this.#saving = undefined
  }
}

/** How long a removal from the group is remembered: longer than most logs keep the messages that were sent meanwhile. */
export function revocationMs (logs: GroupLogs, group: string): number {
  try {
    return Math.max(leastMs, 2 * (logs.of(group)?.ttlMs ?? 0))
  } catch {
    // The function `logs` fails for this group now: its log may be kept for as long as any. A connection that leaves must be put out all
    // the same.
    return 2 * maxTtlMs
  }
}

/** How long the block of a user for `forMs` milliseconds is remembered. */
export function blockRevocationMs (forMs: number): number {
  return forMs + leastMs
}

/** Returns the names under which the removal of all connections of a user is remembered. */
export function namesOfUser (userId: string): readonly string[] {
  return namesOf({ userId, sessionName: undefined }, 'user')
}

function namesOf (client: Client, scope: Scope): string[] {
  const { userId, sessionName } = client
  if (userId === undefined && sessionName === undefined) return []
  const own = scope === 'user' && userId !== undefined ? wholeUserName(userId) : sessionName === undefined ? undefined : `s:${sessionName}`
  return own === undefined ? [userName(client)] : [own, userName(client)]
}

/** Returns the names that concern a client whose grant proves its session. */
function namesOfGranted ({ userId, sessionName = '' }: Client): string[] {
  return userId === undefined ? [`s:${sessionName}`] : [`s:${sessionName}`, wholeUserName(userId)]
}

/** The name for what happened to any connection of the user. */
function userName ({ userId = '' }: Client): string {
  return `u:${userId}`
}

/** The name for what happened to all connections of the user. */
function wholeUserName (userId: string): string {
  return `a:${userId}`
}

function latestIn (revocations: ReadonlyArray<Revocation | undefined>): Revocation | undefined {
  return revocations.filter(one => one !== undefined).sort((a, b) => b.at - a.at)[0]
}

function key (group: string, name: string): string {
  return `${group}\0${name}`
}
