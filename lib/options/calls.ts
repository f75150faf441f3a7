import { isUserId } from '../group-name.ts'
import type {
  AskOptions, BroadcastOptions, CloseOptions, GroupListOptions, HistoryOptions, JoinOptions, LeaveOptions, MembersOptions, PageOptions,
  ReadOptions
} from '../types.ts'
import { aBoolean, anObject, checkOptions, integer, isObject, maxTimerMs, property, type Rule } from './rules.ts'

/** Whoever uses the value checks it, with an error code of its own. */
const checkedLater: Rule = { allowed: 'anything', accepts: () => true }
const aCount: Rule = { allowed: 'an integer from 0', accepts: value => Number.isInteger(value) && (value as number) >= 0 }
const anAge: Rule = { allowed: 'a number of milliseconds from 0', accepts: value => typeof value === 'number' && value >= 0 }
const aString: Rule = { allowed: 'a string', accepts: value => typeof value === 'string' }

const exceptions: Rule = {
  allowed: 'a connection, the id of one, { userId }, { group }, or an array of these',
  accepts: value => [value].flat().every(isException)
}

function isException (value: unknown): boolean {
  if (typeof value === 'string' || !isObject(value)) return typeof value === 'string'
  const named = value as object
  if ('id' in named) return typeof property(named, 'id') === 'string'
  // With both, one of the two would be ignored.
  return ('userId' in named) !== ('group' in named)
}

const broadcast = {
  except: exceptions,
  filter: anObject,
  local: aBoolean,
  from: { allowed: 'a connection, or { userId?, connectionId? }', accepts: isObject },
  volatile: aBoolean,
  conflationKey: checkedLater,
  idempotencyKey: checkedLater,
  report: aBoolean
} as const satisfies Record<keyof BroadcastOptions, Rule>

const page = { cursor: checkedLater, limit: checkedLater } as const satisfies Record<keyof PageOptions, Rule>
const read = { maxAgeMs: anAge } as const satisfies Record<keyof ReadOptions, Rule>

/** The options of the public methods. */
const rules = {
  join: { since: checkedLater, history: aCount, tags: checkedLater } as const satisfies Record<keyof JoinOptions, Rule>,
  leave: { reason: checkedLater } as const satisfies Record<keyof LeaveOptions, Rule>,
  disconnect: { code: checkedLater, reason: checkedLater } as const satisfies Record<keyof CloseOptions, Rule>,
  broadcastToGroup: broadcast,
  broadcastToAll: broadcast,
  sendToUser: broadcast,
  groupCount: read,
  groupList: { ...page, prefix: aString } as const satisfies Record<keyof GroupListOptions, Rule>,
  members: {
    ...page, ...read, userId: { allowed: 'a user id', accepts: isUserId }
  } as const satisfies Record<keyof (MembersOptions & ReadOptions), Rule>,
  presence: { ...page, ...read },
  history: {
    since: checkedLater, before: checkedLater, limit: checkedLater, reverse: aBoolean
  } as const satisfies Record<keyof HistoryOptions, Rule>,
  ask: { timeoutMs: integer(1, maxTimerMs, 'ms') } as const satisfies Record<keyof AskOptions, Rule>
}

/**
 * Checks the options of a call before the call does anything: a misspelt option would otherwise be ignored, and one of a wrong type would
 * fail somewhere inside.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID
 */
export function checkCall (method: keyof typeof rules, options: unknown): void {
  if (options !== undefined) checkOptions(options, rules[method], `${method}.options.`)
}
