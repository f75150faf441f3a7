import { checkLog, defaultLog, defaultUserLog, logRule } from './group-logs.ts'
import { defaultExpiresAt, defaultTokenId, defaultUserId } from './identity.ts'
import { aRate, checkRate, limitsRule, resolveLimits, type ResolvedLimits } from './limits.ts'
import {
  aFunction, check, checkOptions, integer, invalid, isKeyText, isObject, keyText, maxTimerMs, oneOf, property, show,
  withoutUndefined, type Rule
} from './rules.ts'
import { checkCluster, redisRule } from './redis.ts'
import type { OccupancyHooks, OutagePolicy, PublisherOptions, WebsocketGroupsOptions } from './types.ts'
import type { LogSettings } from '../types.ts'

const outageRules = {
  join: oneOf('local', 'reject'),
  broadcast: oneOf('local', 'drop', 'reject'),
  loggedBroadcast: oneOf('reject', 'queue'),
  reads: oneOf('stale', 'reject'),
  upgrade: oneOf('accept', 'refuse'),
  boot: oneOf('degraded', 'fail')
} as const satisfies Record<keyof OutagePolicy, Rule>

const minSecretLength = 32

const aTracing: Rule = {
  allowed: 'an object with the methods of a Tracing',
  accepts: value => ['run', 'inject', 'delivered'].every(name => typeof property(value, name) === 'function')
}

const rules = {
  redis: redisRule,
  tracing: aTracing,
  backplane: {
    allowed: 'an object with the methods of a Backplane',
    accepts: value => ['start', 'subscribe', 'publish', 'syncMember', 'close'].every(name => typeof property(value, name) === 'function')
  },
  authenticate: aFunction,
  authTimeoutMs: integer(1, maxTimerMs, 'ms'),
  secret: {
    allowed: 'a string of at least 32 characters, or an array of them (the first one signs, all are accepted)',
    accepts: value => [value].flat().length > 0 && [value].flat().every(one => typeof one === 'string' && one.length >= minSecretLength),
    secret: 'all'
  },
  userId: aFunction,
  expiresAt: aFunction,
  tokenId: aFunction,
  memberInfo: aFunction,
  onOccupied: aFunction,
  onVacated: aFunction,
  onUserOnline: aFunction,
  onUserOffline: aFunction,
  rooms: { allowed: 'an object of room options by path', accepts: isObject },
  instanceLabel: {
    allowed: 'a string of 1 to 100 characters',
    accepts: value => typeof value === 'string' && value.length >= 1 && value.length <= 100
  },
  options: { allowed: 'an object of ws server options', accepts: isObject },
  keyPrefix: {
    allowed: `a string of 1 to 100 characters ${keyText}`,
    accepts: value => typeof value === 'string' && value !== '' && value.length <= 100 && isKeyText(value)
  },
  log: logRule,
  logs: {
    allowed: 'an object of log settings by group name or prefix*, or a function',
    accepts: value => typeof value === 'function' || isObject(value)
  },
  userLog: logRule,
  outage: { allowed: 'an object of outage policies', accepts: isObject },
  limits: limitsRule,
  upgradeLimit: aRate,
  maxBufferedBytes: integer(1, Number.MAX_SAFE_INTEGER, 'bytes'),
  slowBufferedBytes: integer(1, Number.MAX_SAFE_INTEGER, 'bytes'),
  flushIntervalMs: integer(0, 10, 'ms'),
  maxQueuedMessages: integer(1, Number.MAX_SAFE_INTEGER, 'messages'),
  maxQueuedBytes: integer(1, Number.MAX_SAFE_INTEGER, 'bytes'),
  maxGroupsPerConnection: integer(1, Number.MAX_SAFE_INTEGER, 'groups'),
  presenceGraceMs: integer(0, 600_000, 'ms'),
  heartbeatIntervalMs: integer(0, maxTimerMs, 'ms, 0 disables'),
  operationTimeoutMs: integer(1, maxTimerMs, 'ms'),
  joinTimeoutMs: integer(1, maxTimerMs, 'ms'),
  bootTimeoutMs: integer(0, maxTimerMs, 'ms'),
  leaseMs: integer(1_000, maxTimerMs, 'ms'),
  lingerMs: integer(0, maxTimerMs, 'ms'),
  closeGraceMs: integer(0, maxTimerMs, 'ms'),
  shutdownCode: oneOf(1001, 1012)
} as const satisfies Record<keyof WebsocketGroupsOptions, Rule>

/** Options that Fastify and @fastify/autoload pass to every plugin. */
const fastifyOptions = ['prefix', 'logLevel', 'logSerializers']

const defaults = {
  userId: defaultUserId,
  expiresAt: defaultExpiresAt,
  tokenId: defaultTokenId,
  upgradeLimit: { perSecond: 2_000, burst: 20_000 },
  authTimeoutMs: 10_000,
  rooms: {},
  log: defaultLog,
  keyPrefix: 'wsg:',
  maxBufferedBytes: 4_194_304,
  slowBufferedBytes: 65_536,
  flushIntervalMs: 0,
  maxQueuedMessages: 1_024,
  maxQueuedBytes: 4_194_304,
  maxGroupsPerConnection: 1_000,
  presenceGraceMs: 10_000,
  heartbeatIntervalMs: 30_000,
  operationTimeoutMs: 500,
  joinTimeoutMs: 1_000,
  bootTimeoutMs: 5_000,
  leaseMs: 15_000,
  lingerMs: 5_000,
  closeGraceMs: 1_000,
  shutdownCode: 1001
} as const satisfies Partial<WebsocketGroupsOptions>

const outageDefaults: OutagePolicy = {
  join: 'local', broadcast: 'local', loggedBroadcast: 'reject', reads: 'stale', upgrade: 'accept', boot: 'degraded'
}
const roomRule: Rule = { allowed: 'true or an object of room options', accepts: value => value === true || isObject(value) }
const defaultMaxPayload = 1_048_576

type WithoutDefault =
  'redis' | 'tracing' | 'backplane' | 'authenticate' | 'secret' | 'memberInfo' | 'instanceLabel' | 'logs' | keyof OccupancyHooks
type WithDefault = Exclude<keyof WebsocketGroupsOptions, WithoutDefault | 'outage' | 'limits'>

export type ResolvedOptions =
  { readonly [Name in WithoutDefault]: WebsocketGroupsOptions[Name] } &
  { readonly [Name in WithDefault]: NonNullable<WebsocketGroupsOptions[Name]> } &
  { readonly outage: OutagePolicy, readonly limits: ResolvedLimits }

/** @throws {WebsocketGroupsError} WSG_OPTION_INVALID, naming the option, the value and what is allowed */
export function resolveOptions (raw: unknown = {}): ResolvedOptions {
  checkOptions(raw, rules, '', fastifyOptions)
  const given = withoutUndefined(raw as WebsocketGroupsOptions)
  if (given.redis !== undefined && given.backplane !== undefined) throw invalid('redis and backplane exclude each other: give one of them')
  checkShared(given)
  checkOptions(given.outage ?? {}, outageRules, 'outage.')
  if (given.upgradeLimit !== undefined && given.upgradeLimit !== false) checkRate(given.upgradeLimit, 'upgradeLimit')
  const maxPayload = given.options?.maxPayload
  if (maxPayload !== undefined) check('options.maxPayload', maxPayload, integer(0, Number.MAX_SAFE_INTEGER, 'bytes, 0 for no limit'))
  for (const [path, room] of Object.entries(given.rooms ?? {})) {
    if (!path.startsWith('/')) throw invalid(`the path of a room must begin with a slash, got ${show(path)}`)
    check(`rooms[${show(path)}]`, room, roomRule)
  }
  const options = { maxPayload: defaultMaxPayload, ...withoutUndefined(given.options ?? {}) }
  return {
    redis: undefined,
    tracing: undefined,
    backplane: undefined,
    authenticate: undefined,
    secret: undefined,
    memberInfo: undefined,
    onOccupied: undefined,
    onVacated: undefined,
    onUserOnline: undefined,
    onUserOffline: undefined,
    instanceLabel: undefined,
    logs: undefined,
    userLog: userLogBeside(given.log),
    ...defaults,
    ...given,
    options,
    limits: resolveLimits(given.limits, options.maxPayload),
    outage: { ...outageDefaults, ...withoutUndefined(given.outage ?? {}) }
  }
}

const { redis, keyPrefix, operationTimeoutMs, log, logs, userLog, tracing } = rules
const publisherRules = {
  redis,
  keyPrefix,
  operationTimeoutMs,
  log,
  logs,
  userLog,
  tracing,
  logger: {
    allowed: 'a logger like that of Fastify',
    accepts: value => ['debug', 'warn'].every(level => typeof property(value, level) === 'function')
  }
} as const satisfies Record<keyof PublisherOptions, Rule>

export type ResolvedPublisherOptions =
  Pick<PublisherOptions, 'redis' | 'logger' | 'tracing'> &
  Pick<ResolvedOptions, 'keyPrefix' | 'operationTimeoutMs' | 'log' | 'logs' | 'userLog'>

/**
 * The options of `createPublisher`: what it shares with the plugin has the same rules and defaults there and here.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID, naming the option, the value and what is allowed
 */
export function resolvePublisherOptions (raw: unknown): ResolvedPublisherOptions {
  checkOptions(raw, publisherRules, '')
  const given = withoutUndefined(raw as PublisherOptions)
  check('redis', given.redis, redis)
  checkShared(given)
  const { keyPrefix: prefix, operationTimeoutMs: timeout } = defaults
  return { keyPrefix: prefix, operationTimeoutMs: timeout, log: defaults.log, logs: undefined, userLog: userLogBeside(given.log), ...given }
}

/** The default of `userLog`: an application without logs of groups gets none of users. */
function userLogBeside (log: WebsocketGroupsOptions['log']): LogSettings | false {
  return log === false ? false : defaultUserLog
}

/** Checks what the rules cannot, for the plugin and the publisher. */
function checkShared ({ redis, log, logs, userLog }: Pick<WebsocketGroupsOptions, 'redis' | 'log' | 'logs' | 'userLog'>): void {
  checkCluster(redis)
  if (log !== undefined) checkLog(log, 'log')
  if (userLog !== undefined) checkLog(userLog, 'userLog')
  if (typeof logs !== 'object') return
  for (const [name, settings] of Object.entries<unknown>(logs)) if (settings !== undefined) checkLog(settings, `logs[${show(name)}]`)
}

/** How long the answer of another instance may take (milliseconds): a join there may itself take `joinTimeoutMs`. */
export function answerTimeoutMs (
  { operationTimeoutMs, joinTimeoutMs = defaults.joinTimeoutMs }: { readonly operationTimeoutMs: number, readonly joinTimeoutMs?: number }
): number {
  return Math.min(joinTimeoutMs + operationTimeoutMs, maxTimerMs)
}
