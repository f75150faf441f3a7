import Fastify, { type FastifyInstance } from 'fastify'
import websocketGroups, { type Backplane } from 'fastify-websocket-groups'
import { api } from './api.ts'
import { chat } from './chat.ts'
import { groups, type MemberInfo } from './groups.ts'
import { health } from './health.ts'
import { page } from './page.ts'
import { authenticate } from './tokens.ts'

interface AppOptions {
  /** A name for this instance, in logs and in lists of members. */
  readonly instanceId: string
  /** URL of the Redis that joins the instances. */
  readonly redis?: string
  /** Joins instances in some other way, see `memoryCluster`. Without either, the instance is on its own. */
  readonly backplane?: Backplane
  readonly logLevel?: string
  /** Milliseconds that a client may take to send a request. */
  readonly requestTimeoutMs?: number
}

/** One instance of the chat, ready to listen. */
export function buildApp ({ instanceId, redis, backplane, logLevel = 'info', requestTimeoutMs = 10_000 }: AppOptions): FastifyInstance {
  const app = Fastify({
    // Every line says which instance wrote it.
    logger: { level: logLevel, base: { instance: instanceId } },
    // Believes the X-Forwarded-* headers of a proxy on this machine, see nginx.conf.
    trustProxy: 'loopback',
    // Without a limit, a client that sends a byte now and then would hold its connection for ever. Node checks every half minute unless
    // told otherwise, and swaps the two limits if the one for the headers (a minute by default) is longer.
    requestTimeout: requestTimeoutMs,
    http: { headersTimeout: requestTimeoutMs, connectionsCheckingInterval: Math.ceil(requestTimeoutMs / 10) },
    // Browsers open connections for requests that may never come; close() must not wait for these. WebSockets are closed properly before.
    forceCloseConnections: true
  })

  app.register(websocketGroups, {
    redis,
    backplane,
    authenticate,
    // How many rooms one person may open: a room begins when somebody comes in.
    limits: { newGroupsPerMinute: 60 },
    memberInfo: ({ identity }): MemberInfo | undefined => identity === null ? undefined : { name: identity.name, instance: instanceId }
  })
  app.register(chat)
  app.register(groups)
  app.register(api)
  app.register(health, { instanceId })
  app.register(page)

  return app
}
