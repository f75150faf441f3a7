import type { FastifyInstance } from 'fastify'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import websocketGroups, { type DefaultIdentity, type WebsocketGroupsOptions } from '../../plugin.ts'
import { bareService, type Service, type ServiceOptions } from './bare-service.ts'

export * from './bare-service.ts'

/** An application that listens. */
export interface Served extends Service {
  readonly registry: FastifyInstance['registry']
  readonly port: number
  /** `ws://127.0.0.1:<port>` */
  readonly url: string
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
