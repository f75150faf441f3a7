import { check, checkOptions, integer, isObject, withoutUndefined, type Rule } from './rules.ts'
import type { Limits, Rate } from './types.ts'

type RateName = 'upgradesPerAddress' | 'messages' | 'bytes' | 'requests' | 'replays' | 'tokens' | 'storedBytes'
type CountName = Exclude<keyof Limits, RateName>

/** `undefined` for no limit. */
export type ResolvedLimits = Readonly<Record<CountName, number | undefined> & Record<RateName, Rate | undefined>> & {
  /** The limits that the service set itself. The default limits per address spare private addresses: see docs/security.md. */
  readonly explicit: ReadonlySet<keyof Limits>
}

export const aRate: Rule = { allowed: '{ perSecond, burst? } or false', accepts: value => value === false || isObject(value) }

const rateRules = {
  perSecond: integer(1, Number.MAX_SAFE_INTEGER, 'per second'),
  burst: integer(1, Number.MAX_SAFE_INTEGER, 'at once')
} as const satisfies Record<keyof Rate, Rule>

function orFalse (rule: Rule): Rule {
  return { allowed: `${rule.allowed} or false`, accepts: value => value === false || rule.accepts(value) }
}

const aCount = (unit: string): Rule => orFalse(integer(1, Number.MAX_SAFE_INTEGER, unit))

const limitRules = {
  connections: aCount('connections'),
  connectionsPerUser: aCount('connections'),
  connectionsPerAddress: aCount('connections'),
  upgradesPerAddress: aRate,
  messages: aRate,
  bytes: aRate,
  requests: aRate,
  replays: aRate,
  tokens: aRate,
  newGroupsPerMinute: aCount('groups'),
  storedBytes: aRate,
  presenceBytes: aCount('bytes'),
  queuedBytes: aCount('bytes'),
  bufferedBytes: aCount('bytes')
} as const satisfies Record<keyof Limits, Rule>

export const limitsRule: Rule = {
  allowed: 'an object of limits, or false for none',
  accepts: value => value === false || isObject(value)
}

const defaults = {
  connections: 50_000,
  connectionsPerUser: 100,
  connectionsPerAddress: 1_000,
  upgradesPerAddress: { perSecond: 20, burst: 200 },
  messages: { perSecond: 1_000, burst: 5_000 },
  bytes: { perSecond: 4_194_304, burst: 16_777_216 },
  requests: { perSecond: 100, burst: 1_000 },
  replays: { perSecond: 50, burst: 1_000 },
  tokens: { perSecond: 1, burst: 10 },
  newGroupsPerMinute: 1_000,
  storedBytes: { perSecond: 262_144, burst: 67_108_864 },
  presenceBytes: 262_144,
  queuedBytes: 8_388_608,
  bufferedBytes: 268_435_456
} as const satisfies Limits

/**
 * Checks the limits and fills in defaults. `maxPayload`: the most bytes of one message, 0 for no limit.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID, naming the limit, the value and what is allowed
 */
export function resolveLimits (given: Limits | false = {}, maxPayload = 0): ResolvedLimits {
  if (given !== false) checkOptions(given, limitRules, 'limits.')
  const limits: Record<string, unknown> = {}
  for (const [name, standard] of Object.entries(defaults)) {
    const value = given === false ? false : given[name as keyof Limits] ?? standard
    if (isObject(value)) checkRate(value as Rate, `limits.${name}`)
    limits[name] = value === false ? undefined : value
  }
  if (isObject(limits.storedBytes)) limits.storedBytes = withRoomForOne(limits.storedBytes as unknown as Rate, maxPayload)
  const explicit = new Set(Object.keys(withoutUndefined(given === false ? {} : given)))
  return { ...limits, explicit } as unknown as ResolvedLimits
}

/** Gives a rate without a burst one that the largest message fits into: a message larger than the burst would never be let through. */
function withRoomForOne ({ perSecond, burst }: Rate, maxPayload: number): Rate {
  return { perSecond, burst: burst ?? Math.max(perSecond, maxPayload) }
}

/** @throws {WebsocketGroupsError} WSG_OPTION_INVALID */
export function checkRate (rate: Rate, name: string): void {
  checkOptions(rate, rateRules, `${name}.`)
  check(`${name}.perSecond`, rate.perSecond, rateRules.perSecond)
}
