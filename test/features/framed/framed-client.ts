import Fastify, { type FastifyInstance } from 'fastify'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import websocketGroups, { type WebsocketGroupsOptions } from '../../../plugin.ts'
import { connect, type TestClient } from '../../helpers/client.ts'

export type Frame = Readonly<Record<string, unknown>> & { readonly type: string }

/** A client that speaks the framed protocol by hand, so that tests see each frame. */
export interface FramedClient {
  readonly raw: TestClient
  /** What the server said of itself. */
  readonly welcome: Frame
  /** All frames so far. */
  readonly frames: readonly Frame[]
  send (frame: object): void
  /** The next frame, whatever it is. */
  next (): Promise<Frame>
  /** Hands out frames until one has this type, and these fields. */
  nextOf (type: string, fields?: object): Promise<Frame>
}

export interface FramedOptions {
  readonly token?: string
  readonly hello?: object
}

/** Connects without a hello. */
export function connectFramed (t: Test, url: string, token?: string): TestClient {
  return connect(t, url, { protocols: ['wsg.v1', ...(token === undefined ? [] : ['bearer', token])] })
}

export async function openFramed (t: Test, url: string, { token, hello = {} }: FramedOptions = {}): Promise<FramedClient> {
  const raw = connectFramed(t, url, token)
  await raw.opened
  const next = async (): Promise<Frame> => JSON.parse(String(await raw.next())) as Frame
  const send = (frame: object): void => raw.send(JSON.stringify(frame))
  send({ type: 'hello', ...hello })
  const welcome = await next()
  return {
    raw,
    welcome,
    get frames () { return raw.messages.map(message => JSON.parse(String(message)) as Frame) },
    send,
    next,
    async nextOf (type, fields = {}) {
      for (;;) {
        const frame = await next()
        if (frame.type === type && Object.entries(fields).every(([name, value]) => JSON.stringify(frame[name]) === JSON.stringify(value))) {
          return frame
        }
      }
    }
  }
}

export interface Served {
  readonly app: FastifyInstance
  /** `ws://127.0.0.1:<port>` */
  readonly url: string
}

/** The token of a user is the user's id; `ann~500` ends after 500 ms. */
export async function serve (t: Test, options: WebsocketGroupsOptions, routes: (app: FastifyInstance) => void): Promise<Served> {
  const app = Fastify()
  t.teardown(async () => await app.close())
  await app.register(websocketGroups, {
    closeGraceMs: 300,
    lingerMs: 50,
    authenticate: token => {
      const [userId = '', ms] = token.split('~')
      return userId === 'nobody' ? null : { userId, ...(ms === undefined ? {} : { expiresAt: Date.now() + Number(ms) }) }
    },
    ...options
  })
  routes(app)
  await app.listen({ port: 0, host: '127.0.0.1' })
  return { app, url: `ws://127.0.0.1:${(app.server.address() as AddressInfo).port}` }
}
