import type { FastifyInstance, FastifyReply, FastifyRequest, preHandlerAsyncHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import { createHash, randomBytes } from 'node:crypto'
import { WebsocketGroupsError } from '../errors.ts'
import { isOwnHost } from '../http/origin.ts'
import { forOperators } from '../http/upgrade-guard.ts'
import { aFunction, checkOptions, integer, invalid, type Rule } from '../options/rules.ts'
import { CloseCode } from '../protocol/close-codes.ts'
import type {} from '../route-types.ts'
import { authHook } from './auth-hook.ts'
import { notStored } from './not-stored.ts'
import { addActions, type Allow } from './dashboard/actions.ts'
import { css, html } from './dashboard/page.ts'
import { Reporter } from './dashboard/reporter.ts'
import { js } from './dashboard/script.ts'
import { addViews } from './dashboard/views.ts'
import { Watch } from './dashboard/watch.ts'

export type { DashboardAction } from './dashboard/actions.ts'

export interface GroupsDashboardOptions {
  /** An async hook that throws, replies or returns `false` unless the request may see the dashboard. It runs for its WebSocket, too. */
  readonly auth: preHandlerAsyncHookHandler
  /**
   * The second permission: whether the request may read a group's messages (`history`), or act on a user (`disconnect`, `kick`, `block`,
   * `unblock`). Only `true` allows. Left out: nobody may.
   */
  readonly allow?: Allow | undefined
  /**
   * A secret that all instances share: at least 16 characters. With it the page shows all instances; left out, only the instance that the
   * page comes from.
   */
  readonly key?: string | undefined
  /** Milliseconds between reports while somebody looks, or 10 for each instance if that is more. @default 2_000 */
  readonly everyMs?: number | undefined
  /**
   * How long a socket of the page may be open (milliseconds). Then the page opens another one, for which `auth` is asked again: after this
   * time at the latest, whoever lost the permission sees nothing new. @default 60_000
   */
  readonly authEveryMs?: number | undefined
}

const rules = {
  auth: aFunction,
  allow: aFunction,
  key: { allowed: 'a string of at least 16 characters', accepts: value => typeof value === 'string' && value.length >= 16, secret: 'all' },
  everyMs: integer(100, 10_000, 'ms'),
  authEveryMs: integer(1_000, 3_600_000, 'ms')
} as const satisfies Record<keyof GroupsDashboardOptions, Rule>

const headers = {
  'content-security-policy': "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; " +
    "form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer'
}

async function groupsDashboard (app: FastifyInstance, options: GroupsDashboardOptions): Promise<void> {
  checkOptions(options, rules, 'groupsDashboard.', ['prefix', 'logLevel', 'logSerializers'])
  const { auth, allow, key, everyMs = 2_000, authEveryMs = 60_000 } = options
  if (typeof auth !== 'function') throw invalid('groupsDashboard needs `auth`: a hook that refuses everyone who may not see it')
  const { registry } = app
  const reporter = new Reporter(registry)
  const watch = new Watch({ registry, reporter, name: key === undefined ? undefined : secretName('report', key), everyMs, log: app.log })
  app.addHook('onRequest', notStored)
  // After the sessions of the application are read, and before a stranger is told how a request should be.
  app.addHook('preValidation', sameOrigin)
  app.addHook('preValidation', authHook(auth))

  app.get('/', async (request, reply) => {
    // The page loads its files by relative URLs.
    const [path = '', query] = request.url.split('?')
    if (!path.endsWith('/')) return await reply.redirect(`${path.split('/').at(-1) ?? ''}/${query === undefined ? '' : `?${query}`}`)
    return await reply.headers(headers).type('text/html; charset=utf-8').send(html)
  })
  app.get('/dashboard.css', async (_request, reply) => await reply.headers(headers).type('text/css; charset=utf-8').send(css))
  app.get('/dashboard.js', async (_request, reply) => await reply.headers(headers).type('text/javascript; charset=utf-8').send(js))
  app.get('/live', { websocket: true, config: forOperators }, app.wsHandler({
    onConnect (connection) {
      watch.add(connection)
      const ends = setTimeout(() => connection.close(CloseCode.ServiceRestart, 'auth is asked again'), authEveryMs).unref()
      connection.signal.addEventListener('abort', () => clearTimeout(ends))
    },
    onMessage (connection, data) { if (typeof data === 'string') watch.turn(connection, data) },
    onDisconnect (connection) { watch.remove(connection) }
  }))

  addViews(app, allow, secretName('describe', key ?? randomBytes(16).toString('hex')))
  addActions(app, allow)

  app.addHook('onReady', async () => reporter.start())
  app.addHook('onClose', async () => {
    watch.stop()
    reporter.stop()
  })
}

function secretName (what: string, key: string): string {
  return `${what}-${createHash('sha256').update(`fastify-websocket-groups ${what} ${key}`).digest('hex')}`
}

/** Refuses requests from pages of other origins: browsers send this host's credentials with them. */
async function sameOrigin (request: FastifyRequest, _reply: FastifyReply): Promise<void> {
  const { origin } = request.headers
  if (origin === undefined || isOwnHost(origin, request)) return
  throw new WebsocketGroupsError('WSG_FORBIDDEN', 'the request comes from a page of another origin')
}

/** Adds a page that shows instances, rates, latencies, groups, users, recent gaps and limits; with `allow`, actions too. */
export default fp(groupsDashboard, {
  fastify: '5.x', name: 'fastify-websocket-groups-dashboard', dependencies: ['fastify-websocket-groups'], encapsulate: true
})
