import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import type { AddressInfo } from 'node:net'
import { Writable } from 'node:stream'
import type { Test } from 'tap'
import websocketGroups, { type DefaultIdentity, type WebsocketGroupsOptions } from '../../plugin.ts'
import { noUnhandled } from './no-unhandled.ts'

export interface LogLine { readonly level: number, readonly msg: string, readonly [field: string]: unknown }

export interface ServiceOptions extends FastifyServerOptions {
  /** From which level on lines are logged. @default 'info' */
  readonly level?: string
}

/** An application that a test is about to give its routes. */
export interface Service {
  readonly app: FastifyInstance
  /** What was logged. */
  readonly logs: readonly LogLine[]
  /** Opens a port, a free one unless it is named. The URL has no slash at its end. */
  listen (port?: number): Promise<string>
}

/** An application that listens. */
export interface Served extends Service {
  readonly registry: FastifyInstance['registry']
  readonly port: number
  /** `ws://127.0.0.1:<port>` */
  readonly url: string
}

/** The application of a process that ends with it: nobody else closes it. */
export function buildService ({ level = 'info', ...fastify }: ServiceOptions = {}): Service {
  const logs: LogLine[] = []
  const stream = new Writable({
    write (lines: Buffer, _encoding, done) {
      for (const line of lines.toString().trim().split('\n')) logs.push(JSON.parse(line) as LogLine)
      done()
    }
  })
  const app = Fastify({ ...fastify, logger: { level, stream } })
  return { app, logs, listen: async (port = 0) => await app.listen({ port, host: '127.0.0.1' }) }
}

/** The same without the plugin, closed when the test ends; fails the test on unhandled rejections. */
export function bareService (t: Test, fastify?: ServiceOptions): Service {
  noUnhandled(t)
  const service = buildService(fastify)
  t.teardown(async () => await service.app.close())
  return service
}

/** A service with the plugin, on the in-memory backplane unless the options say otherwise. Every other option has its default. */
export async function service (t: Test, options: WebsocketGroupsOptions = {}, fastify?: ServiceOptions): Promise<Service> {
  const bare = bareService(t, fastify)
  await bare.app.register(websocketGroups, options)
  return bare
}

/** A service with these routes that listens. It knows users by their tokens, see `userOf`, and is in no hurry to be closed. */
export async function serve (t: Test, options: WebsocketGroupsOptions, routes: (app: FastifyInstance) => void): Promise<Served> {
  const built = await service(t, { closeGraceMs: 300, lingerMs: 50, authenticate: userOf, ...options })
  const { app, listen } = built
  routes(app)
  await listen()
  const { port } = app.server.address() as AddressInfo
  return { ...built, registry: app.registry, port, url: `ws://127.0.0.1:${port}` }
}

/** The token of a user is the user's id, escaped; `ann~500` ends after 500 ms, and `nobody` is refused. */
export function userOf (token: string): DefaultIdentity | null {
  const [name = '', ms] = token.split('~')
  const userId = decodeURIComponent(name)
  return userId === 'nobody' ? null : { userId, ...(ms === undefined ? {} : { expiresAt: Date.now() + Number(ms) }) }
}

/** A promise that the test settles. */
export function gate (): { readonly opened: Promise<void>, open (): void } {
  let open = (): void => {}
  const opened = new Promise<void>(resolve => { open = resolve })
  return { opened, open }
}
