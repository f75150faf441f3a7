import type { FastifyInstance } from 'fastify'
import type { IncomingMessage } from 'node:http'
import { setImmediate as turn } from 'node:timers/promises'
import { WebsocketGroupsError } from '../errors.ts'
import { internalsOf } from '../fastify-internals.ts'
import type { Metrics } from '../metrics.ts'
import { ServerSockets } from './server-sockets.ts'

/** The listener of @fastify/websocket, where the application registered it before this plugin. */
const theirListener = 'onUpgrade'

interface SocketGuard {
  /** Called once @fastify/websocket is registered. */
  watchUpgrades (): void
  /** Whether routes added before this plugin, or other listeners for upgrades, may take WebSockets. */
  readonly othersUpgrade: () => boolean
  /** Wraps `wsAuth` so that clients waiting for `authenticate` are refused when the shutdown begins. */
  refusable (wsAuth: FastifyInstance['wsAuth']): FastifyInstance['wsAuth']
  /** Refuses what waits, then drains, then ends sockets that would hold up the end of the server after the grace. */
  shutDown (drain: () => Promise<void>): Promise<void>
  /** The server is closed. Returns how many milliseconds the rest of the shutdown may take. */
  closed (): number
}

/** Makes the server of `app` end within `graceMs` plus a second, and treat only WebSocket upgrades as upgrades. */
export function guardSockets (app: FastifyInstance, graceMs: number, metrics: Pick<Metrics, 'upgradeRefused'>): SocketGuard {
  const { server } = app
  const sockets = new ServerSockets(() => app.websocketServer, graceMs, metrics)
  const waiting = new Set<() => void>()
  const cameFirst = app.hasDecorator('websocketServer')
  const before: unknown[] = server.listeners('upgrade').filter(({ name }) => !cameFirst || name !== theirListener)
  let known: readonly unknown[] = []
  let closing = false
  const othersListen = (): boolean => server.listeners('upgrade').some(listener => !known.includes(listener))

  sockets.upgrades.watch(server)
  // Fastify itself answers what comes now, before any hook.
  server.on('upgrade', (request: IncomingMessage) => { if (closing && !othersListen()) metrics.upgradeRefused(request) })
  sockets.watch(server, othersListen)
  app.addHook('onListen', async () => {
    for (const other of internalsOf(app).otherServers ?? []) sockets.watch(other, othersListen)
  })

  return {
    watchUpgrades () {
      known = server.listeners('upgrade').filter(listener => !before.includes(listener))
      app.websocketServer.on('connection', (_socket: unknown, request: IncomingMessage) => sockets.upgrades.upgraded(request))
    },
    othersUpgrade: () => cameFirst || othersListen(),
    refusable: wsAuth => options => {
      const authenticate = wsAuth(options)
      return async function authenticateUntilClosing (request, reply) {
        const refused = (): WebsocketGroupsError => {
          if (request.ws) metrics.upgradeRefused(request.raw)
          return refusal()
        }
        if (closing) throw refused()
        await new Promise<unknown>((resolve, reject) => {
          const refuse = (): void => reject(refused())
          waiting.add(refuse)
          // A set, not one promise that all race against: that would keep memory for each request until the shutdown.
          void authenticate.call(app, request, reply).then(resolve, reject).finally(() => waiting.delete(refuse))
        })
      }
    },
    async shutDown (drain) {
      closing = true
      for (const refuse of waiting) refuse()
      // Lets Fastify answer the refused requests, in the application's own way.
      await turn()
      sockets.closing()
      await drain()
      sockets.drained()
    },
    closed: () => sockets.closed()
  }
}

function refusal (): WebsocketGroupsError {
  return new WebsocketGroupsError('WSG_REFUSED', 'the instance is shutting down')
}
