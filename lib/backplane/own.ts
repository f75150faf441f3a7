import type { FastifyBaseLogger } from 'fastify'
import { errorCodes, WebsocketGroupsError, type ErrorCode } from '../errors.ts'
import { logEvent } from '../logging.ts'
import { isThenable } from '../options/rules.ts'
import { toError } from '../thrown.ts'
import type { Backplane, Envelope, LocalInstance } from './backplane.ts'
import type { StreamStore } from './streams.ts'

/*
 * A custom backplane may fail in ways that the contract does not allow: throw where it should reject, reject with the error of some driver,
 * or answer with nothing. The callers of a backplane rely on the contract, so all of that is translated here, in one place: the caller gets
 * an outage, the log gets a line, and strangers get no details.
 */

type Check = (value: unknown) => boolean

const isAnything: Check = () => true
const isObject: Check = value => typeof value === 'object' && value !== null
const isNumber: Check = value => Number.isFinite(value)
const isBoolean: Check = value => typeof value === 'boolean'
const isString: Check = value => typeof value === 'string'
const isArray: Check = value => Array.isArray(value)
const isListOf = (check: Check): Check => value => Array.isArray(value) && value.every(one => check(one))
const isFunction: Check = value => typeof value === 'function'
const isMap: Check = value => has('get', isFunction)(value)
const isNoneOr = (check: Check): Check => value => value === undefined || check(value)
const has = (field: string, check: Check): Check => value => isObject(value) && check((value as Record<string, unknown>)[field])
const isBlock: Check = value => has('name', isString)(value) && has('leftMs', isNumber)(value)

/** A call that returns a promise: the code of its failure, and which answers it accepts. */
interface Promised { readonly failure: ErrorCode, readonly accepts: Check }

/** A call that may or may not have taken effect when it fails. */
const write = (accepts = isAnything): Promised => ({ failure: 'WSG_TIMEOUT', accepts })
/** A call that changes nothing, or that the backplane repeats by itself. */
const read = (accepts = isAnything): Promised => ({ failure: 'WSG_BACKPLANE_UNAVAILABLE', accepts })

/** The methods whose answers are promises, except for the two that are handled by themselves. */
type Asked = Exclude<{
  [Name in keyof Backplane]-?: NonNullable<Backplane[Name]> extends (...args: never[]) => Promise<unknown> ? Name : never
}[keyof Backplane], 'start' | 'close'>

const promised = {
  subscribe: read(),
  publish: write(isNoneOr(isNumber)),
  append: write(has('positions', isMap)),
  history: read(has('messages', isListOf(has('position', isObject)))),
  instances: read(isMap),
  secret: read(isString),
  revoke: write(),
  revoked: read(isNoneOr(isObject)),
  syncMember: read(),
  syncUser: read(isNumber),
  block: write(isBoolean),
  blocks: read(isNoneOr(isListOf(isBlock))),
  settle: read(isArray),
  count: read(isNumber),
  members: read(isListOf(has('connectionId', isString)))
} as const satisfies Record<Asked, Promised>

const promisedByStreams = {
  write: write(isString),
  read: read(isNoneOr(isObject)),
  list: read(isArray)
} as const satisfies Record<keyof StreamStore, Promised>

const states: readonly unknown[] = ['up', 'degraded', 'down'] satisfies Array<Backplane['state']>

type Method = (...values: unknown[]) => unknown

/** Makes a custom backplane keep the contract of `Backplane`. */
export function ownBackplane (backplane: Backplane, appLog: FastifyBaseLogger): Backplane {
  const failures = new Failures(appLog)
  const streams = new WeakMap<StreamStore, StreamStore>()
  const calls = failures.guardCalls('', backplane, promised) as unknown as Pick<Backplane, Asked>
  const safe: Backplane = {
    ...calls,
    name: backplane.name,
    localHistory: backplane.localHistory,
    get state (): Backplane['state'] {
      return failures.unless('state', state => states.includes(state), () => backplane.state, () => 'down')
    },
    get problems (): readonly string[] {
      return failures.unless('problems', isArray, () => backplane.problems, () => ['the backplane cannot say what is wrong'])
    },
    get streams (): StreamStore | undefined {
      const store = failures.orThrow('streams', isNoneOr(has('write', isFunction)), 'WSG_BACKPLANE_UNAVAILABLE', () => backplane.streams)
      if (store === undefined) return undefined
      const known = streams.get(store) ?? failures.guardCalls('streams.', store, promisedByStreams) as unknown as StreamStore
      streams.set(store, known)
      return known
    },
    async start (local: LocalInstance): Promise<void> {
      failures.log = local.log
      try {
        await backplane.start(failures.guardLocal(local))
      } catch (error) {
        // The boot fails with this error. A rejection with `undefined` would look like a boot that worked.
        throw toError(error)
      }
    },
    unsubscribe: target => { void failures.tellOf('unsubscribe', () => backplane.unsubscribe(target)) },
    // Without an answer say no: members who are served by this instance would get a message twice that also arrives.
    interrupted: target => failures.unless('interrupted', isBoolean, () => backplane.interrupted(target), () => false),
    position: group => failures.unless('position', isNoneOr(isObject), () => backplane.position(group), () => undefined),
    stats: () => failures.unless('stats', isObject, () => backplane.stats(), () => ({})),
    // The rest of the shutdown must not fail because of what `close` left behind.
    close: async () => await failures.tellOf('close', async () => await backplane.close())
  }
  if (backplane.now === undefined) return safe
  return Object.defineProperty(safe, 'now', {
    value: () => failures.unless('now', isNumber, () => backplane.now?.() ?? Date.now(), () => Date.now())
  })
}

/** Decides what becomes of the failures of one backplane. */
class Failures {
  log: FastifyBaseLogger

  constructor (log: FastifyBaseLogger) {
    this.log = log
  }

  tell (call: string, error: unknown): void {
    logEvent(this.log, 'backplane_call_failed', { call, err: error })
  }

  /** Returns those of the calls that the object has. Each of them rejects with errors of this package alone. */
  guardCalls<Name extends string> (prefix: string, object: object, kinds: Readonly<Record<Name, Promised>>): Record<string, Method> {
    const methods = object as Record<Name, Method | undefined>
    const names = (Object.keys(kinds) as Name[]).filter(name => methods[name] !== undefined)
    return Object.fromEntries(names.map(name => {
      const { failure, accepts } = kinds[name]
      const call = prefix + name
      return [name, async (...values: unknown[]): Promise<unknown> => {
        try {
          const answer = await methods[name]?.(...values)
          if (!accepts(answer)) throw notAllowed(call)
          return answer
        } catch (error) {
          throw this.#translate(call, failure, error)
        }
      }]
    }))
  }

  /** Runs a call whose failure only the log has to know. Never rejects. */
  async tellOf (call: string, run: () => unknown): Promise<void> {
    try {
      await run()
    } catch (error) {
      this.tell(call, error)
    }
  }

  /** Returns what the call returns, or `fallback()` if the call throws or returns anything else than it should: a promise, say. */
  unless<Value> (call: string, accepts: Check, run: () => Value, fallback: () => Value): Value {
    try {
      return this.#checked(call, accepts, run())
    } catch (error) {
      this.tell(call, error)
      return fallback()
    }
  }

  /** The same without a fallback. @throws {WebsocketGroupsError} with that code */
  orThrow<Value> (call: string, accepts: Check, failure: ErrorCode, run: () => Value): Value {
    try {
      return this.#checked(call, accepts, run())
    } catch (error) {
      throw this.#translate(call, failure, error)
    }
  }

  /** @throws where the value is not what the contract allows */
  #checked<Value> (call: string, accepts: Check, value: Value): Value {
    if (accepts(value) && !isThenable(value)) return value
    // The rejection of a promise that nobody handles would end the process.
    void this.tellOf(call, () => value)
    throw notAllowed(call)
  }

  /**
   * The instance as the backplane sees it: whatever the backplane passes to the instance, nothing throws in the middle of the backplane.
   */
  guardLocal (local: LocalInstance): LocalInstance {
    const tell = (call: string, run: () => void): void => {
      try {
        run()
      } catch (error) {
        this.tell(call, error)
      }
    }
    return {
      ...local,
      deliver: envelope => tell('deliver', () => {
        // Anything but an envelope would fail later, when it is written to the sockets of the members.
        if (!isEnvelope(envelope)) throw new TypeError('the backplane delivered something that is not an envelope')
        local.deliver(envelope)
      }),
      gap: (...told) => tell('gap', () => local.gap(...told)),
      returned: (...told) => tell('returned', () => local.returned?.(...told)),
      membersLost: () => tell('membersLost', () => local.membersLost?.()),
      blocksLost: () => tell('blocksLost', () => local.blocksLost?.()),
      stateChanged: () => tell('stateChanged', () => local.stateChanged())
    }
  }

  /** Errors of this package say what happened; others may hold anything, and only the log gets them. */
  #translate (call: string, failure: ErrorCode, thrown: unknown): Error {
    const error = toError(thrown)
    if ('code' in error && Object.hasOwn(errorCodes, String(error.code))) return error
    this.tell(call, error)
    return new WebsocketGroupsError(failure, `${call} of the backplane failed`, { cause: error })
  }
}

const notAllowed = (call: string): TypeError => new TypeError(`${call} of the backplane broke the contract by its result`)

const kinds: readonly unknown[] = ['message', 'presence', 'request', 'reply'] satisfies Array<Envelope['kind']>

/** The fields that no envelope can do without. */
const envelopeFields = {
  kind: kind => kinds.includes(kind),
  target: has('name', isString),
  origin: isString,
  sequence: isNumber,
  except: isArray,
  command: isString,
  payload: payload => Buffer.isBuffer(payload)
} as const satisfies Partial<Record<keyof Envelope, Check>>

const isEnvelope: Check = value => isObject(value) && Object.entries(envelopeFields).every(([field, check]) => has(field, check)(value))
