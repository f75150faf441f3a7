import t from 'tap'
import { Cluster, Redis } from 'ioredis'
import { MemoryBackplane } from '../../../lib/backplane/memory/index.ts'
import { resolveOptions, resolvePublisherOptions } from '../../../lib/options/resolve.ts'

function refusal (options: unknown): string {
  try {
    resolveOptions(options)
  } catch (error) {
    return String(error)
  }
  return 'none'
}

/** Option, value, what the error says of the value, what it says is allowed. */
const wrong: ReadonlyArray<readonly [string, unknown, string, string]> = [
  ['redis', 6379, '6379', 'a URL'],
  ['redis', '', "''", 'a URL'],
  ['redis', null, 'null', 'a URL'],
  ['redis', 'localhost:6379', "'localhost:6379'", 'redis://'],
  ['redis', 'http://localhost', "'http://localhost'", 'redis://'],
  ['redis', '//localhost:6379/2', "'//localhost:6379/2'", 'redis://'],
  ['redis', 'REDISS://localhost', "'REDISS://localhost'", 'rediss://'],
  ['redis', ' redis://localhost', "' redis://localhost'", 'redis://'],
  ['redis', 'redis:localhost', "'redis:localhost'", 'redis://'],
  ['redis', new (class RedisClient { options = {}; duplicate (): void {} })(), 'an object of class RedisClient', 'an ioredis client'],
  ['backplane', {}, 'an object', 'a Backplane'],
  ['tracing', { run () {} }, 'an object', 'a Tracing'],
  ['authenticate', 'secret', "'secret'", 'a function'],
  ['authTimeoutMs', 0, '0', 'from 1'],
  ['secret', 'hunter2', 'a string of 7 characters', 'a string of at least 32 characters'],
  ['userId', 1, '1', 'a function'],
  ['expiresAt', 60, '60', 'a function'],
  ['tokenId', 'jti', "'jti'", 'a function'],
  ['limits', true, 'true', 'an object of limits'],
  ['memberInfo', {}, 'an object', 'a function'],
  ['rooms', ['/ws/:room'], 'an array', 'an object'],
  ['instanceLabel', '', "''", '1 to 100 characters'],
  ['options', 1024, '1024', 'an object'],
  ['keyPrefix', '{x}:', "'{x}:'", 'without braces'],
  ['keyPrefix', '', "''", '1 to 100'],
  ['keyPrefix', 'a\ud800', "'a", 'lone surrogates'],
  ['outage', 'local', "'local'", 'an object'],
  ['log', true, 'true', 'false or { maxMessages, maxBytes?, ttlMs }'],
  ['userLog', true, 'true', 'false or { maxMessages, maxBytes?, ttlMs }'],
  ['logs', 'chat:*', "'chat:*'", 'by group name or prefix*'],
  ['presenceGraceMs', -1, '-1', 'from 0'],
  ['maxBufferedBytes', 0, '0', 'an integer from 1'],
  ['upgradeLimit', 5, '5', '{ perSecond, burst? }'],
  ['slowBufferedBytes', 0, '0', 'an integer from 1'],
  ['flushIntervalMs', 11, '11', 'an integer from 0 to 10 (ms)'],
  ['maxQueuedMessages', 1.5, '1.5', 'an integer'],
  ['maxQueuedBytes', Infinity, 'Infinity', 'an integer'],
  ['maxGroupsPerConnection', '10', "'10'", 'an integer'],
  ['heartbeatIntervalMs', '30s', "'30s'", 'an integer from 0 to 2147483647 (ms, 0 disables)'],
  ['heartbeatIntervalMs', 2 ** 31, '2147483648', '2147483647'],
  ['operationTimeoutMs', 0, '0', 'from 1'],
  ['joinTimeoutMs', -1, '-1', 'from 1'],
  ['bootTimeoutMs', null, 'null', 'from 0'],
  ['leaseMs', 10, '10', 'from 1000'],
  ['lingerMs', NaN, 'NaN', 'from 0'],
  ['closeGraceMs', true, 'true', 'from 0'],
  ['shutdownCode', 1000, '1000', '1001 or 1012'],
  ['onOccupied', 1, '1', 'a function'],
  ['onVacated', 'x', "'x'", 'a function'],
  ['onUserOnline', {}, 'an object', 'a function'],
  ['onUserOffline', true, 'true', 'a function']
]

t.test('a wrong value is refused with the option, the value and what is allowed', async t => {
  for (const [name, value, got, allowed] of wrong) {
    t.throws(() => resolveOptions({ [name]: value }), { code: 'WSG_OPTION_INVALID' })
    const message = refusal({ [name]: value })
    for (const part of [`${name} must be`, `got ${got}`, allowed]) t.ok(message.includes(part), `${message} - ${part}`)
  }
})

t.test('every option is in the table above or tested by name below', async t => {
  const tested = new Set(wrong.map(([name]) => name))
  t.strictSame(Object.keys(resolveOptions()).filter(name => !tested.has(name)), [])
})

function refusalOf (resolve: (options: unknown) => unknown, options: unknown): unknown {
  try {
    resolve(options)
  } catch (error) {
    return error
  }
  return 'none'
}

t.test('a publisher refuses what the plugin refuses, with the same errors, and has the same defaults', async t => {
  const redis = 'redis://localhost'
  const { keyPrefix, operationTimeoutMs, log, userLog } = resolveOptions()
  t.strictSame(resolvePublisherOptions({ redis }), { redis, keyPrefix, operationTimeoutMs, log, logs: undefined, userLog })
  t.strictSame(resolvePublisherOptions({ redis, keyPrefix: undefined, log: undefined }), resolvePublisherOptions({ redis }))
  const shared = ['redis', 'keyPrefix', 'log', 'logs', 'userLog', 'tracing', 'operationTimeoutMs']
  const bad: ReadonlyArray<readonly [string, unknown]> = [
    ...wrong.filter(([name]) => shared.includes(name)).map(([name, value]) => [name, value] as const),
    ['redis', { cluster: [] }],
    ['log', { maxMessages: 'ten', ttlMs: -1 }],
    ['log', { maxMessages: 10 }],
    ['log', { maxMessages: 10, ttlMs: 1_000, size: 1 }],
    ['logs', { 'chat:*': { maxMessages: 10 } }],
    ['logs', { lobby: null }]
  ]
  for (const [name, value] of bad) {
    t.match(refusalOf(resolveOptions, { redis, [name]: value }), { code: 'WSG_OPTION_INVALID' })
    t.strictSame(
      String(refusalOf(resolvePublisherOptions, { redis, [name]: value })), String(refusalOf(resolveOptions, { redis, [name]: value }))
    )
  }
})

t.test('a publisher needs a Redis, and refuses options it has not', async t => {
  const unset = refusalOf(resolvePublisherOptions, {})
  t.match(unset, { code: 'WSG_OPTION_INVALID', message: /redis must be a URL.*got undefined/ })
  t.equal(String(refusalOf(resolvePublisherOptions, { redis: undefined })), String(unset), 'as from an unset environment variable')
  t.equal(String(refusalOf(resolveOptions, { redis: null })), String(unset).replace('undefined', 'null'), 'the text is that of the plugin')
  t.match(
    refusalOf(resolvePublisherOptions, undefined), { code: 'WSG_OPTION_INVALID', message: /the options must be an object, got undefined/ }
  )
  const misspelt = { redis: 'redis://localhost', keyPrfix: 'x' }
  t.match(
    refusalOf(resolvePublisherOptions, misspelt), { code: 'WSG_OPTION_INVALID', message: /no option keyPrfix \(got 'x'\).*keyPrefix/ }
  )
  t.match(refusalOf(resolvePublisherOptions, { redis: 'redis://localhost', logger: {} }), { message: /logger must be a logger/ })
  t.doesNotThrow(() => resolvePublisherOptions({ redis: 'redis://localhost', logger: console }))
})

t.test('an unknown option is refused with the options there are', async t => {
  t.throws(() => resolveOptions({ heartbeatInterval: 1 }), {
    code: 'WSG_OPTION_INVALID', message: /no option heartbeatInterval \(got 1\).*heartbeatIntervalMs/
  })
  t.throws(() => resolveOptions({ outage: { joins: 'local' } }), { message: /no option outage\.joins \(got 'local'\).*join, broadcast/ })
  // Names that every object has are no options either.
  t.throws(() => resolveOptions({ toString: 1 }), { message: /no option toString/ })
  t.throws(() => resolveOptions('redis://localhost'), { message: /the options must be an object, got 'redis:\/\/localhost'/ })
})

t.test('nested options are named with their path', async t => {
  t.throws(() => resolveOptions({ outage: { join: 'wait' } }), { message: /outage\.join must be 'local' or 'reject', got 'wait'/ })
  t.throws(() => resolveOptions({ outage: { boot: 1 } }), { message: /outage\.boot must be 'degraded' or 'fail', got 1/ })
  t.throws(() => resolveOptions({ options: { maxPayload: '1mb' } }), { message: /options\.maxPayload must be an integer.*got '1mb'/ })
  t.throws(() => resolveOptions({ rooms: { 'ws/:room': true } }), { message: /begin with a slash, got 'ws\/:room'/ })
  t.throws(() => resolveOptions({ rooms: { '/ws/:room': false } }), {
    message: /rooms\['\/ws\/:room'\] must be true or an object of room options, got false/
  })
})

t.test('a value that cannot be shown is described', async t => {
  t.throws(() => resolveOptions({ keyPrefix: () => {} }), { message: /got a function/ })
  t.throws(() => resolveOptions({ keyPrefix: new Map() }), { message: /got an object of class Map/ })
  t.throws(() => resolveOptions({ keyPrefix: Object.create(null) as object }), { message: /got an object/ })
  t.throws(() => resolveOptions({ keyPrefix: 10n }), { message: /got 10n/ })
  t.throws(() => resolveOptions({ keyPrefix: Symbol('x') }), { message: /got Symbol\(x\)/ })
  t.ok(refusal({ keyPrefix: '{'.repeat(1000) }).length < 300)
})

t.test('the password of a Redis URL is not in the error', async t => {
  for (const url of ['http://user:hunter2@host', 'user:hunter2@host', 'rediss:hunter2@host']) {
    t.match(refusal({ redis: url }), /got .*\*\*\*@host/)
    t.notMatch(refusal({ redis: url }), /hunter2/)
  }
})

t.test('redis is a URL, a socket path, ioredis options or an ioredis client', async t => {
  const client = new Redis({ lazyConnect: true })
  for (const redis of ['redis://localhost:6379/1', 'rediss://u:p@host', '/run/redis.sock', { host: 'localhost' }, client]) {
    t.equal(resolveOptions({ redis }).redis, redis)
  }
  client.disconnect()
})

t.test('a Redis Cluster is given by its nodes, or as an ioredis Cluster', async t => {
  const client = new Cluster(['redis://localhost'], { lazyConnect: true })
  const nodes = ['redis://localhost:7000', 'rediss://u:p@host', 'host:7001', 7002, { host: 'localhost', port: 7003 }]
  for (const redis of [client, { cluster: nodes }, { cluster: nodes, options: { natMap: {}, redisOptions: { db: 0 } } }]) {
    t.equal(resolveOptions({ redis }).redis, redis)
  }
  client.disconnect()
  t.match(refusal({ redis: { cluster: [] } }), /redis\.cluster must be an array of at least one node, got an array/)
  t.match(refusal({ redis: { cluster: 'redis://host' } }), /redis\.cluster must be an array/)
  const others = ['http://u:hunter2@host', '', 0, 70_000, null, true, { host: 5 }, { host: '' }, { port: 70_000 }, { port: 'x' }, []]
  for (const node of others) {
    t.match(refusal({ redis: { cluster: ['host:1', node] } }), /redis\.cluster\[1\] must be a URL/)
    t.notMatch(refusal({ redis: { cluster: ['host:1', node] } }), /hunter2/)
  }
  t.match(refusal({ redis: { cluster: ['host:1'], natMap: {} } }), /no 'natMap': put it into redis\.options/)
  t.match(refusal({ redis: { cluster: ['host:1'], options: { redisOptions: { db: 2 } } } }), /has database 0 only, got 2/)
  t.match(refusal({ redis: { cluster: ['host:1'], options: { keyPrefix: '{a}' } } }), /without braces/)
  for (const node of ['redis://host:1/2', 'redis://host:1?db=2', { host: 'host', port: 1, db: 2 }, 'redis://host/prod']) {
    t.match(refusal({ redis: { cluster: ['redis://host:1/0', node] } }), /database 0 only, redis\.cluster\[1\] names another one/)
  }
  t.match(refusal({ redis: { cluster: ['redis://user:hunter%zz@host:1'] } }), /redis\.cluster\[0\] must be a URL/)
  for (const [options, expected] of [[{ redisOptions: { db: 2 } }, /database 0 only/], [{ keyPrefix: '{a}' }, /without braces/]] as const) {
    const given = new Cluster([{ host: '127.0.0.1', port: 1 }], { ...options, lazyConnect: true })
    t.match(refusal({ redis: given }), expected, 'of a client that was given')
  }
})

t.test('a natMap or redisOptions of another type are refused, where ioredis would ignore them', async t => {
  const cluster = ['host:1']
  const address = { host: 'host', port: 7000 }
  const node = '10.0.0.1:6379'
  for (const natMap of [undefined, null, {}, { [node]: address }, { [node]: { ...address, port: '7000' } }, () => address]) {
    const redis = { cluster, options: { natMap } }
    t.equal(resolveOptions({ redis } as never).redis, redis)
  }
  const others = [`${node}=host:7000`, '', JSON.stringify({ [node]: address }), 5, false, [], [address], new Map([[node, address]])]
  for (const natMap of others) {
    const message = /natMap.* must be an object of \{ 'host:port': \{ host, port \} \} or a function, got/
    t.match(refusal({ redis: { cluster, options: { natMap } } }), message)
    t.match(refusal({ redis: { sentinels: [address], name: 'one', natMap } }), message, 'beside sentinels')
  }
  for (const entry of ['host:7000', 7000, null, {}, { host: 'host' }, { port: 7000 }, { ...address, host: '' }, { ...address, port: 0 }]) {
    const refused = refusal({ redis: { cluster, options: { natMap: { [node]: entry } } } })
    t.match(refused, /must have \{ host, port \} for '10\.0\.0\.1:6379'/)
  }
  for (const redisOptions of ['password=hunter2', 5, [], true]) {
    t.match(refusal({ redis: { cluster, options: { redisOptions } } }), /redisOptions of the cluster must be an object/)
  }
  const given = new Cluster([address], { natMap: 'host:7000' as never, lazyConnect: true })
  t.match(refusal({ redis: given }), /natMap of the cluster must be/, 'of a client that was given')
})

t.test('sentinels need the name of their master, and are addresses', async t => {
  const sentinels = [{ host: 'host', port: 26379 }, { host: 'other' }]
  for (const redis of [{ sentinels, name: 'one' }, { sentinels: null, host: 'host' }]) {
    t.equal(resolveOptions({ redis } as never).redis, redis)
  }
  for (const name of [undefined, null, '', 5]) t.match(refusal({ redis: { sentinels, name } }), /redis\.name must be the name that/)
  for (const wrong of [[], 'host:26379', {}, ['host:26379'], [null], [{ host: 'host', port: 'x' }]]) {
    t.match(refusal({ redis: { sentinels: wrong, name: 'one' } }), /redis\.sentinels must be an array of at least one \{ host, port \}/)
  }
  t.match(refusalOf(resolvePublisherOptions, { redis: { sentinels } }), { code: 'WSG_OPTION_INVALID' })
})

t.test('redis and backplane exclude each other', async t => {
  const backplane = new MemoryBackplane()
  t.equal(resolveOptions({ backplane }).backplane, backplane)
  t.throws(() => resolveOptions({ backplane, redis: 'redis://localhost' }), { message: /redis and backplane exclude each other/ })
})

t.test('an option that is undefined, as an unset environment variable is, counts as left out', async t => {
  const nothing = Object.fromEntries(wrong.map(([name]) => [name, undefined]))
  t.strictSame(resolveOptions(nothing), resolveOptions())
  t.equal(resolveOptions({ options: { maxPayload: undefined }, outage: { join: undefined } }).options.maxPayload, 1_048_576)
  t.equal(resolveOptions({ outage: { join: undefined, reads: 'reject' } }).outage.join, 'local')
})

t.test('the defaults are the documented ones', async t => {
  t.match(resolveOptions(), {
    redis: undefined,
    options: { maxPayload: 1_048_576 },
    rooms: {},
    keyPrefix: 'wsg:',
    log: { maxMessages: 1_000, maxBytes: 1_048_576, ttlMs: 300_000 },
    presenceGraceMs: 10_000,
    outage: { join: 'local', broadcast: 'local', loggedBroadcast: 'reject', reads: 'stale', upgrade: 'accept', boot: 'degraded' },
    maxBufferedBytes: 4_194_304,
    maxQueuedMessages: 1_024,
    maxQueuedBytes: 4_194_304,
    maxGroupsPerConnection: 1_000,
    heartbeatIntervalMs: 30_000,
    operationTimeoutMs: 500,
    joinTimeoutMs: 1_000,
    bootTimeoutMs: 5_000,
    leaseMs: 15_000,
    lingerMs: 5_000,
    closeGraceMs: 1_000,
    shutdownCode: 1001
  })
})

t.test('log settings are checked field by field, those of exceptions too', async t => {
  t.match(refusal({ log: { maxMessages: 0, ttlMs: 1_000 } }), /log.maxMessages must be an integer from 1 to 10000 \(messages\), got 0/)
  t.match(refusal({ log: { maxMessages: 10 } }), /log.ttlMs must be .*, got undefined/)
  t.match(
    refusal({ log: { maxMessages: 10, maxBytes: 0, ttlMs: 1_000 } }),
    /log.maxBytes must be an integer from 1 to 1073741824 \(bytes\), got 0/
  )
  t.match(refusal({ logs: { 'chat:*': { maxMessages: 10, ttlMs: '5m' } } }), /logs\['chat:\*'\].ttlMs must be .*, got '5m'/)
  t.match(refusal({ log: { maxMessages: 10, ttlMs: 1_000, epoch: 1 } }), /no option log.epoch/)
  t.doesNotThrow(() => resolveOptions({ log: false, logs: { lobby: { maxMessages: 10, ttlMs: 1_000 }, 'cursor:*': false } }))
  t.doesNotThrow(() => resolveOptions({ logs: () => false }))
})

t.test('options of ws are kept beside the default maxPayload', async t => {
  t.strictSame(resolveOptions({ options: { perMessageDeflate: true } }).options, { maxPayload: 1_048_576, perMessageDeflate: true })
  t.strictSame(resolveOptions({ options: { maxPayload: 10 } }).options, { maxPayload: 10 })
})

t.test('what Fastify hands to every plugin is accepted', async t => {
  t.doesNotThrow(() => resolveOptions({ prefix: '/v1', logLevel: 'warn', logSerializers: {} }))
})

t.test('a secret is long, and never in an error', async t => {
  const secret = 'x'.repeat(32)
  for (const good of [secret, [secret], [secret, 'y'.repeat(40)]]) t.equal(resolveOptions({ secret: good }).secret, good)
  for (const bad of ['hunter2', [], [secret, 'hunter2'], 7, '']) {
    t.match(refusal({ secret: bad }), /secret must be a string of at least 32 characters/)
    t.notMatch(refusal({ secret: bad }), /hunter2/)
  }
})

t.test('limits are on by default, each can be changed or switched off, and a wrong one is refused', async t => {
  const { limits } = resolveOptions()
  t.equal(limits.connectionsPerUser, 100)
  t.strictSame(limits.messages, { perSecond: 1_000, burst: 5_000 })
  t.strictSame([...limits.explicit], [])
  const own = resolveOptions({ limits: { connections: 5, messages: false, bytes: { perSecond: 7 }, tokens: undefined } }).limits
  t.strictSame([own.connections, own.messages, own.bytes, own.tokens], [5, undefined, { perSecond: 7 }, { perSecond: 1, burst: 10 }])
  t.strictSame([...own.explicit], ['connections', 'messages', 'bytes'])
  const storedBytes = { perSecond: 1_000 }
  t.strictSame(resolveOptions({ limits: { storedBytes } }).limits.storedBytes, { perSecond: 1_000, burst: 1_048_576 })
  const unlimited = resolveOptions({ limits: { storedBytes }, options: { maxPayload: 0 } })
  t.strictSame(unlimited.limits.storedBytes, { perSecond: 1_000, burst: 1_000 })
  t.strictSame(resolveOptions({ limits: { storedBytes: { perSecond: 1, burst: 2 } } }).limits.storedBytes, { perSecond: 1, burst: 2 })
  const { explicit, ...none } = resolveOptions({ limits: false }).limits
  t.ok(Object.values(none).every(limit => limit === undefined), 'all are off')
  t.strictSame(
    [resolveOptions().upgradeLimit, resolveOptions({ upgradeLimit: false }).upgradeLimit], [{ perSecond: 2_000, burst: 20_000 }, false]
  )
  for (const [wrong, message] of [
    [{ connections: 0 }, /limits\.connections must be an integer from 1 to \d+ \(connections\) or false, got 0/],
    [{ messages: 5 }, /limits\.messages must be \{ perSecond, burst\? \} or false, got 5/],
    [{ messages: {} }, /limits\.messages\.perSecond must be an integer from 1/],
    [{ bytes: { perSecond: 1, burst: 0 } }, /limits\.bytes\.burst must be an integer from 1/],
    [{ users: 1 }, /no option limits\.users/],
    [true, /limits must be an object of limits, or false for none, got true/]
  ] as const) t.throws(() => resolveOptions({ limits: wrong }), { code: 'WSG_OPTION_INVALID', message })
})
