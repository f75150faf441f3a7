import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { MemoryBackplane } from './lib/backplane/memory/index.ts'
import { ownBackplane } from './lib/backplane/own.ts'
import { RedisBackplane } from './lib/backplane/redis/index.ts'
import { GroupPublisher } from './lib/groups/publisher.ts'
import type { Backplane } from './lib/backplane/backplane.ts'
import { CheckDeadlines, withDeadline } from './lib/deadline.ts'
import { WebsocketGroupsError } from './lib/errors.ts'
import { admitUpgrades, precheckUpgrades } from './lib/http/admission.ts'
import { documentRoutes } from './lib/http/documented-routes.ts'
import { secured } from './lib/http/security-schemes.ts'
import { makeWsAuth } from './lib/http/ws-auth.ts'
import { guardSockets } from './lib/http/shutdown.ts'
import { selectProtocol } from './lib/http/token-sources.ts'
import { markRoute, upgradeGuard } from './lib/http/upgrade-guard.ts'
import { checkRoute, makeWsHandler } from './lib/http/ws-handler.ts'
import { makeWsMessages } from './lib/http/ws-messages.ts'
import { makeWsRoom } from './lib/http/ws-room.ts'
import { addRouteHooks, registerWebsocket } from './lib/http/websocket-plugin.ts'
import { fitBootTimeout } from './lib/options/boot-timeout.ts'
import { resolveOptions, resolvePublisherOptions, type ResolvedOptions } from './lib/options/resolve.ts'
import { Instance } from './lib/instance.ts'
import type { PublisherOptions, WebsocketGroupsOptions } from './lib/options/types.ts'
import type { RoomOptions } from './lib/route-types.ts'
import type { Publisher } from './lib/types.ts'

export type * from './lib/options/types.ts'
export type * from './lib/route-types.ts'
export type * from './lib/types.ts'
export type { Backplane, Block, Envelope, LocalInstance, Target } from './lib/backplane/backplane.ts'
export type { MemoryCluster } from './lib/backplane/memory/index.ts'
export { memoryCluster } from './lib/backplane/memory/index.ts'
export { comparePositions } from './lib/backplane/position.ts'
export type { Contract, HasContract } from './lib/protocol/contract.ts'
export { CloseCode } from './lib/protocol/close-codes.ts'
export { errorCodes, WebsocketGroupsError, type ErrorCode } from './lib/errors.ts'

const name = 'fastify-websocket-groups'

/** HTTP servers that have the plugin: a second one would handle every upgrade twice. */
const servers = new WeakSet<object>()

/**
 * Broadcasts from a process that holds no sockets: a worker, a cron job, a script. It connects at once; the first calls wait for that.
 * Close it when done, or write `await using publisher = createPublisher({ redis })`.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID, where the plugin would refuse the same options, and when `redis` is not set
 */
export function createPublisher (options: PublisherOptions): Publisher {
  return new GroupPublisher(resolvePublisherOptions(options))
}

async function websocketGroups (app: FastifyInstance, raw: WebsocketGroupsOptions): Promise<void> {
  if (app.hasDecorator('registry') && !servers.has(app.server)) {
    throw new WebsocketGroupsError('WSG_OPTION_INVALID', 'the application has a decorator `registry` of its own: give that another name')
  }
  if (servers.has(app.server)) {
    throw new WebsocketGroupsError('WSG_ALREADY_REGISTERED', 'register it once, in the scope that encloses all its routes')
  }
  const options = fitBootTimeout(resolveOptions(raw), raw.bootTimeoutMs, app.initialConfig.pluginTimeout)
  servers.add(app.server)
  const instance = new Instance(options, makeBackplane(options, app.log), app.log)

  app.decorate('registry', instance.registry)
  app.decorateRequest('identity', null)
  const sockets = guardSockets(app, options.closeGraceMs, instance.metrics)
  // Before @fastify/websocket's own hook, which closes its clients without a code and waits for the slowest.
  app.addHook('preClose', async () => await sockets.shutDown(async () => await instance.drain()))
  const { asyncapi, collect } = documentRoutes()
  addRouteHooks(app, checkRoute, collect)
  await registerWebsocket(app, { options: { handleProtocols: selectProtocol, ...options.options } })
  sockets.watchUpgrades()
  app.addHook('onRoute', markRoute)
  app.addHook('onRequest', upgradeGuard(instance, sockets.othersUpgrade))
  app.addHook('onRequest', precheckUpgrades(instance.gate, instance.metrics))
  admitUpgrades(app, instance.gate, instance.metrics)
  const messages = makeWsMessages(instance)
  app.addHook('onReady', async () => {
    messages.compile()
    await instance.start()
  })
  // A Redis that hangs holds up the end of the application for a moment only; the memberships are then removed in the background.
  const checks = new CheckDeadlines(options.authTimeoutMs)
  app.addHook('onClose', async () => {
    checks.end()
    await withDeadline(instance.close(), sockets.closed(), () => undefined)
  })

  const wsAuth = sockets.refusable(makeWsAuth({ ...options, metrics: instance.metrics, checks }))
  app.decorate('wsAuth', authOptions => secured(wsAuth(authOptions), authOptions))
  app.decorate('wsHandler', makeWsHandler(instance, options, checks))
  app.decorate('asyncapi', asyncapi)
  app.decorate('wsMessages', messages.wsMessages)
  app.decorate('wsRoom', makeWsRoom(instance, options, checks))
  // TypeScript cannot infer the type parameters of each room.
  for (const [path, room] of Object.entries(options.rooms ?? {})) app.wsRoom(path, room === true ? {} : room as RoomOptions)
}

function makeBackplane (options: ResolvedOptions, log: FastifyBaseLogger): Backplane {
  const { backplane, redis, outage } = options
  if (backplane !== undefined) return ownBackplane(backplane, log)
  return redis === undefined ? new MemoryBackplane() : new RedisBackplane({ ...options, redis, whenDown: outage.loggedBroadcast })
}

export default fp(websocketGroups, { fastify: '5.x', name })
