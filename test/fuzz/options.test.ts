// Whatever stands in place of an option: the boot goes on, or is refused with an error that names the option; nothing breaks later.
import fc from 'fast-check'
import Fastify from 'fastify'
import t from 'tap'
import websocketGroups, { type RoomOptions, type WebsocketGroupsOptions } from '../../plugin.ts'
import { attacked, fuzz } from './rig.ts'

const service = await attacked(t, {}, () => {})

const refusals = new Set(['WSG_OPTION_INVALID', 'FST_ERR_PLUGIN_TIMEOUT'])
const value = fc.oneof(
  fc.anything({ withBigInt: true, withDate: true, withMap: true, withNullPrototype: true, maxDepth: 2 }),
  fc.constantFrom(
    undefined, null, true, false, 0, -0, -1, 1, 1.5, NaN, Infinity, '', '0', '500', 'wsg:', [], {}, () => true, async () => true,
    () => { throw new Error('thrown') }, Symbol('s')
  ),
  fc.integer(), fc.double(),
  fc.record({ perSecond: fc.anything(), burst: fc.anything() }), fc.record({ maxMessages: fc.anything(), ttlMs: fc.anything() })
)
// Not `redis` and `backplane`: those connect.
const names = [
  'authenticate', 'authTimeoutMs', 'userId', 'tokenId', 'expiresAt', 'memberInfo', 'secret', 'keyPrefix', 'outage', 'upgradeLimit',
  'limits', 'log', 'logs',
  'maxBufferedBytes', 'slowBufferedBytes', 'flushIntervalMs', 'maxQueuedMessages', 'maxQueuedBytes', 'maxGroupsPerConnection',
  'presenceGraceMs',
  'heartbeatIntervalMs', 'operationTimeoutMs', 'joinTimeoutMs', 'bootTimeoutMs', 'leaseMs', 'lingerMs', 'closeGraceMs', 'shutdownCode',
  'options', 'instanceId', 'unknownOption'
]
const roomNames = [
  'auth', 'group', 'preHandler', 'onJoin', 'onMessage', 'onLeave', 'onError', 'onGap', 'mayJoin', 'mayStay', 'presence', 'history',
  'unknownOption'
]
const authNames = ['authenticate', 'authorize', 'required', 'cookie', 'query', 'allowedOrigins', 'unknownOption']
const optionsOf = (names: readonly string[]): fc.Arbitrary<Record<string, unknown>> =>
  fc.dictionary(fc.constantFrom(...names), value, { minKeys: 1, maxKeys: 3 })
const input = fc.oneof(
  { weight: 4, arbitrary: optionsOf(names).map(plugin => ({ plugin, room: undefined })) },
  { weight: 2, arbitrary: optionsOf(roomNames).map(room => ({ plugin: {}, room })) },
  { weight: 1, arbitrary: optionsOf(authNames).map(auth => ({ plugin: {}, room: { auth } })) },
  { weight: 1, arbitrary: fc.tuple(value, value).map(([plugin, room]) => ({ plugin, room })) }
)

await fuzz(t, input, async ({ plugin, room }) => {
  const app = Fastify()
  try {
    await app.register(websocketGroups, { authenticate: () => ({ userId: 'ann' }), ...plugin as WebsocketGroupsOptions })
    if (room !== undefined) app.wsRoom('/:room', room as RoomOptions<{ room: string }>)
    await app.ready()
  } catch (error) {
    const { code, message } = error as { readonly code?: string, readonly message: string }
    if (code === undefined || !refusals.has(code)) throw new Error(`refused with ${String(code)}: ${message}`, { cause: error })
  } finally {
    await app.close()
  }
})
await service.finish()
