import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Backplane, LogPosition } from '../backplane/backplane.ts'
import { formatPosition, formatSealedStart, isLogStart, parsePosition, sealOf } from '../backplane/position.ts'
import { isOutageOrClosed } from '../errors.ts'

/*
 * What a client may resume from. A position is a secret of the messages it came with: its nonce is random, so whoever names a position that
 * the log holds was given it. Three things a position cannot prove by itself, as the log no longer holds, or never held, anything to
 * compare it with: that it was the beginning of the log, that it was trimmed meanwhile, or that it stood in an earlier log of the group.
 * Two secrets prove these:
 *
 * - the seal: the beginning of a log is written with a MAC in the bytes that it leaves free, so that it is a secret of its group, too;
 * - the grant: a MAC over the position at which a session joined a group, and when. With it the client is owed whatever came after that
 *   position, unless it was put out of the group since then.
 *
 * Both are made once per join, and neither costs anything per message. All instances share the key.
 */

const positionLength = 24
/** The bytes of the time at which the session joined (milliseconds since 1970). */
const timeBytes = 6
const grantMacBytes = 16
/** A position and a time, in base64url. */
const grantTextLength = positionLength + 8
/** How many keys of the backplane are accepted: the present one, and earlier ones that other instances may still sign with. */
const maxKeys = 4
/** How often the backplane is asked for the key: it may have lost the key, and another instance may have drawn a new one. */
const refreshMs = 60_000

/** What a grant says. */
interface Grant {
  /** Where the log was when the session joined the group. */
  readonly position: LogPosition
  /** When that was, by the clock of the instances. */
  readonly at: number
}

/** Makes proofs with the key that was known when it was made, and accepts those of earlier keys. */
export class ResumeProofs {
  readonly #keys: readonly Buffer[]

  constructor (keys: readonly Buffer[]) {
    this.#keys = keys
  }

  /** A position as clients get it. */
  format (group: string, position: LogPosition): string {
    const [key] = this.#keys
    return isLogStart(position) && key !== undefined ? formatSealedStart(mac(key, 'start', group)) : formatPosition(position)
  }

  /** Proves that the session joined the group at the position, at that time; `undefined` while no key is known. */
  grant (group: string, session: string, { position, at }: Grant): string | undefined {
    const [key] = this.#keys
    if (key === undefined) return undefined
    const time = Buffer.alloc(timeBytes)
    time.writeUIntBE(Math.max(0, Math.trunc(at)), 0, timeBytes)
    const text = formatPosition(position) + time.toString('base64url')
    return text + mac(key, 'grant', group, session, text).toString('base64url', 0, grantMacBytes)
  }

  /** What the grant says, if it was given to this session in this group. */
  granted (group: string, session: string | undefined, grant: string | undefined): Grant | undefined {
    if (session === undefined || grant === undefined) return undefined
    const text = grant.slice(0, grantTextLength)
    const given = Buffer.from(grant.slice(grantTextLength), 'base64url')
    const genuine = this.#keys.some(key => same(mac(key, 'grant', group, session, text).subarray(0, grantMacBytes), given))
    const position = genuine ? parsePosition(text.slice(0, positionLength)) : undefined
    if (position === undefined) return undefined
    return { position, at: Buffer.from(text.slice(positionLength), 'base64url').readUIntBE(0, timeBytes) }
  }

  /** Whether the client was given this as the beginning of the group's log. */
  isSealedStart (group: string, since: string): boolean {
    const seal = sealOf(since)
    return seal !== undefined && this.#keys.some(key => same(mac(key, 'start', group).subarray(0, seal.length), seal))
  }
}

/** The key of the proofs: the option `secret`, else a key that the instances share through the backplane, else one of this process. */
export class ProofKeys {
  readonly #backplane: Pick<Backplane, 'secret'>
  readonly #failed: (error: unknown) => void
  readonly #now: () => number
  #keys: readonly string[]
  #proofs: ResumeProofs
  readonly #fixed: boolean
  #askedAt = -Infinity
  #asking: Promise<void> | undefined

  /** `failed` is called with errors of the backplane other than an outage. */
  constructor (
    backplane: Pick<Backplane, 'secret'>, secret: string | readonly string[] | undefined, failed: (error: unknown) => void,
    now: () => number = () => performance.now()
  ) {
    this.#backplane = backplane
    this.#failed = failed
    this.#now = now
    this.#fixed = secret !== undefined || backplane.secret === undefined
    this.#keys = secret === undefined ? (this.#fixed ? [drawKey()] : []) : [secret].flat()
    this.#proofs = proofsOf(this.#keys)
  }

  /** Resolves with the present proofs; they prove nothing while no key is known because the backplane is out. */
  async proofs (): Promise<ResumeProofs> {
    if (!this.#fixed && this.#now() - this.#askedAt >= refreshMs) this.#asking ??= this.#ask().finally(() => { this.#asking = undefined })
    // Later calls use the key that is known and do not wait.
    if (this.#keys.length === 0) await this.#asking
    return this.#proofs
  }

  /** Never rejects. A backplane that lost the key is given back the one that is in use here. */
  async #ask (): Promise<void> {
    try {
      const key = await this.#backplane.secret?.(this.#keys[0] ?? drawKey())
      this.#askedAt = this.#now()
      if (key === undefined || key === this.#keys[0]) return
      this.#keys = [key, ...this.#keys.filter(known => known !== key)].slice(0, maxKeys)
      this.#proofs = proofsOf(this.#keys)
    } catch (error) {
      // Nothing else can be done in an outage: the next join asks again.
      if (!isOutageOrClosed(error)) this.#failed(error)
    }
  }
}

function proofsOf (keys: readonly string[]): ResumeProofs {
  return new ResumeProofs(keys.map(key => Buffer.from(key)))
}

function drawKey (): string {
  return randomBytes(32).toString('base64url')
}

/** Names of groups and sessions hold no control characters, so that a zero byte keeps the parts apart. */
function mac (key: Buffer, ...parts: readonly string[]): Buffer {
  return createHmac('sha256', key).update(parts.join('\0')).digest()
}

function same (a: Buffer, b: Buffer): boolean {
  return a.length === b.length && timingSafeEqual(a, b)
}
