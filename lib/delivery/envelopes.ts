import type { Envelope, Target } from '../backplane/backplane.ts'
import { assertData } from '../connection/outbound/message.ts'
import { WebsocketGroupsError } from '../errors.ts'
import { assertGroupName, assertUserId } from '../group-name.ts'
import { drawId } from '../ids.ts'
import type { BroadcastOptions, Data, Sender, Tracing } from '../types.ts'
import { userLogOf } from '../backplane/user-log.ts'
import { audienceOf, exceptIds, type Named } from './audience.ts'

/** Makes the envelopes of one origin, each with the next sequence number. */
export class EnvelopeFactory {
  /** The id of the instance or publisher. */
  readonly origin = drawId()
  #sequence = 0
  readonly #find: (id: string) => Named | undefined
  readonly #now: () => number
  readonly #tracing: Pick<Tracing, 'inject'> | undefined

  /** `find` knows the connections of this instance. */
  constructor (
    find: (id: string) => Named | undefined = () => undefined, now: () => number = () => Date.now(), tracing?: Pick<Tracing, 'inject'>
  ) {
    this.#find = find
    this.#now = now
    this.#tracing = tracing
  }

  /**
   * Who is excluded from a message to these targets.
   * @throws {WebsocketGroupsError} WSG_USER_ID_INVALID, WSG_GROUP_NAME_INVALID, WSG_OPTION_INVALID
   */
  exclusive (targets: readonly Target[], options: BroadcastOptions): Pick<Envelope, 'except' | 'audience'> {
    const audience = audienceOf(targets, options)
    return { except: exceptIds(options.except, this.#find), audience }
  }

  /**
   * @throws {WebsocketGroupsError} WSG_DATA_INVALID, WSG_CONFLATION_KEY_INVALID, WSG_USER_ID_INVALID, WSG_GROUP_NAME_INVALID,
   * WSG_OPTION_INVALID
   */
  message (targets: readonly Target[], data: Data, options: BroadcastOptions): Envelope {
    const { volatile = false, conflationKey, from } = options
    if (conflationKey !== undefined) assertConflationKey(conflationKey)
    const trace = this.#tracing?.inject()
    const { except, audience } = this.exclusive(targets, options)
    // All fields by name: made with spreads, the object costs several times as much, and so does each look at it.
    return {
      origin: this.origin,
      sequence: ++this.#sequence,
      kind: 'message',
      target: targets[0] ?? allInstances,
      shared: targets.length > 1,
      except,
      audience,
      command: '',
      binary: typeof data !== 'string',
      payload: toBuffer(data),
      volatile: volatile || conflationKey !== undefined,
      at: this.#now(),
      from: from === undefined ? undefined : senderOf(from),
      conflationKey,
      trace
    }
  }

  command (kind: Exclude<Envelope['kind'], 'message'>, target: Target, command: string, data: Data = ''): Envelope {
    return {
      origin: this.origin,
      sequence: ++this.#sequence,
      kind,
      target,
      shared: false,
      except: [],
      command,
      binary: typeof data !== 'string',
      payload: toBuffer(data)
    }
  }
}

/** @throws {WebsocketGroupsError} WSG_OPTION_INVALID */
function senderOf (from: NonNullable<BroadcastOptions['from']>): Sender {
  const { userId, connectionId = 'id' in from ? from.id : undefined } = from as Sender & { readonly id?: string }
  for (const id of [userId, connectionId]) {
    if (id !== undefined && (typeof id !== 'string' || Buffer.byteLength(id) > maxSenderBytes)) {
      const detail = `from must be a connection, or { userId, connectionId } of up to ${maxSenderBytes} bytes`
      throw new WebsocketGroupsError('WSG_OPTION_INVALID', detail)
    }
  }
  return { ...(userId === undefined ? {} : { userId }), ...(connectionId === undefined ? {} : { connectionId }) }
}

const maxSenderBytes = 255

/** The target of all instances. */
export const allInstances: Target = { kind: 'all', name: '' }
/** The targets of a message to all connections. */
export const everyone: readonly Target[] = [allInstances]

/** @throws {WebsocketGroupsError} WSG_GROUP_NAME_INVALID */
export function groupTargets (group: string | readonly string[]): readonly Target[] {
  return Array.from(Array.isArray(group) ? new Set<unknown>(group) : [group], name => {
    assertGroupName(name)
    return { kind: 'group', name }
  })
}

/** @throws {WebsocketGroupsError} WSG_USER_ID_INVALID */
export function userTarget (userId: string): Target {
  assertUserId(userId)
  return { kind: 'user', name: userId }
}

/** The target of the user's log; `undefined` when users have no logs. */
export function userLogTarget (userId: string): Target | undefined {
  const name = userLogOf(userId)
  return name === undefined ? undefined : { kind: 'group', name }
}

/**
 * A copy: the caller may reuse its bytes once the call returned, and a message may wait for its delivery.
 * @throws {WebsocketGroupsError} WSG_DATA_INVALID
 */
export function toBuffer (data: Data): Buffer {
  assertData(data)
  return Buffer.from(data)
}

const maxConflationKeyBytes = 255

function assertConflationKey (key: unknown): void {
  if (typeof key === 'string' && key !== '' && Buffer.byteLength(key) <= maxConflationKeyBytes) return
  throw new WebsocketGroupsError('WSG_CONFLATION_KEY_INVALID')
}
