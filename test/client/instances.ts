import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { WebSocket } from 'ws'
import type { WebSocketClass } from '../../lib/client/index.ts'
import type { Registry, RoomOptions, WebsocketGroupsOptions } from '../../plugin.ts'
import { serve } from '../helpers/service.ts'

type OpenRoom = RoomOptions<{ room: string }, { required: false }>
/** What a test's route does differently. */
export type Room = (registry: Registry) => Pick<OpenRoom, 'onMessage' | 'onError' | 'presence' | 'history'>

export interface Instance {
  readonly app: FastifyInstance
  /** `ws://127.0.0.1:<port>/<group>` */
  url (group: string): string
  readonly port: number
}

/** The real plugin with a room route, where `secret` is the one group that nobody may join. */
export async function serveRoom (t: Test, options: WebsocketGroupsOptions, room: Room = () => ({})): Promise<Instance> {
  const { app, port, url } = await serve(t, options, app => {
    app.wsRoom('/:room', { auth: { required: false }, mayJoin: (_connection, group) => group !== 'secret', ...room(app.registry) })
  })
  return { app, port, url: group => `${url}/${group}` }
}

interface Line {
  readonly WebSocket: WebSocketClass
  /** Which instance the next attempt reaches. */
  to (port: number): void
  /** Breaks the connection as a network does. */
  cut (): void
  /** Attempts so far. */
  readonly attempts: number
}

/** What a load balancer is to a client: one address, and any instance behind it. */
export function line (port: number): Line {
  let target = port
  let attempts = 0
  let latest: WebSocket | undefined
  class Balanced extends WebSocket {
    constructor (url: string, protocols: string[]) {
      const address = new URL(url)
      address.port = String(target)
      super(address, protocols)
      attempts++
      latest = this
    }
  }
  return {
    WebSocket: Balanced,
    to (port) { target = port },
    cut () { latest?.terminate() },
    get attempts () { return attempts }
  }
}
