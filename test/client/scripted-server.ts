import type { Test } from 'tap'
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { WebSocket, WebSocketServer } from 'ws'
import { until } from '../helpers/until.ts'
import { connect, type Address, type Client, type ClientEvents, type ConnectOptions } from '../../lib/client/index.ts'

export type Frame = Readonly<Record<string, unknown>> & { readonly type: string }

interface Peer {
  readonly ws: WebSocket
  readonly request: IncomingMessage
  /** What the client sent on this connection. */
  readonly frames: readonly Frame[]
  readonly closed: Promise<{ readonly code: number, readonly reason: string }>
  send (...frames: Frame[]): void
  /** The first frame of this type, once it is there. */
  got (type: string): Promise<Frame>
}

interface ScriptedServer {
  readonly url: string
  readonly port: number
  /** All connections so far. */
  readonly peers: readonly Peer[]
  /** The n-th connection, once it said hello; from 0. */
  peer (index: number): Promise<Peer>
  close (): Promise<void>
}

interface Script {
  /** What a server says to each hello. @default { pingMs: 0, resumeMs: 0 } */
  readonly welcome?: Partial<{ pingMs: number, resumeMs: number, session: string }> | false
  /** Acknowledges what has an id. @default true */
  readonly ack?: boolean
  readonly pong?: boolean
  readonly protocol?: string
  readonly port?: number
  /** HTTP status to refuse upgrades with; undefined lets them in. */
  readonly refuse?: (request: IncomingMessage) => number | undefined
  readonly onFrame?: (peer: Peer, frame: Frame) => void
}

/** A server that speaks the protocol as far as a test tells it to. */
export async function scriptedServer (t: Test, script: Script = {}): Promise<ScriptedServer> {
  const peers: Peer[] = []
  const server = new WebSocketServer({
    port: script.port ?? 0,
    host: '127.0.0.1',
    handleProtocols: () => script.protocol ?? 'wsg.v1',
    verifyClient: ({ req }, done) => {
      const status = script.refuse?.(req)
      done(status === undefined, status)
    }
  })
  await once(server, 'listening')
  server.on('connection', (ws, request) => {
    const frames: Frame[] = []
    const peer: Peer = {
      ws,
      request,
      frames,
      closed: new Promise(resolve => ws.on('close', (code, reason) => resolve({ code, reason: reason.toString() }))),
      send (...outgoing) { for (const frame of outgoing) ws.send(JSON.stringify(frame)) },
      got: async type => await until(() => frames.find(frame => frame.type === type), { what: `a ${type} frame` })
    }
    const number = peers.push(peer)
    ws.on('error', () => {})
    ws.on('message', (data: Buffer) => {
      const frame = JSON.parse(data.toString()) as Frame
      frames.push(frame)
      if (frame.type === 'hello' && script.welcome !== false) {
        peer.send({ type: 'welcome', connectionId: `c${number}`, session: 's1', pingMs: 0, resumeMs: 0, ...script.welcome })
      }
      if (frame.type === 'ping' && script.pong !== false) peer.send({ type: 'pong' })
      if (frame.id !== undefined && script.ack !== false) peer.send({ type: 'ack', id: frame.id })
      script.onFrame?.(peer, frame)
    })
  })
  const { port } = server.address() as AddressInfo
  const close = async (): Promise<void> => {
    for (const client of server.clients) client.terminate()
    await new Promise(resolve => server.close(resolve))
  }
  t.teardown(close)
  return {
    url: `ws://127.0.0.1:${port}`,
    port,
    peers,
    close,
    peer: async index => {
      const peer = await until(() => peers[index], { what: `connection ${index}` })
      await peer.got('hello')
      return peer
    }
  }
}

export type Recorded = { readonly [Name in keyof ClientEvents]: Array<ClientEvents[Name]> }

export interface Recording {
  readonly client: Client
  /** Every event so far, by name. */
  readonly events: Recorded
}

/** A client that retries fast and whose events are recorded. Closed at the end of the test. */
export function recordedClient (t: Test, url: Address, options: ConnectOptions = {}): Recording {
  const client = connect(url, { WebSocket, backoff: { minMs: 20, maxMs: 100 }, ...options })
  t.teardown(() => client.close())
  const events: Recorded = {
    message: [], presence: [], members: [], count: [], joined: [], left: [], gap: [], state: [], error: [], close: []
  }
  const record = <Name extends keyof ClientEvents>(name: Name): void => { client.on(name, event => { events[name].push(event) }) }
  for (const name of Object.keys(events) as Array<keyof ClientEvents>) record(name)
  return { client, events }
}

/** Positions are 24 characters. */
export const position = (n: number): string => String(n).padStart(24, '0')

export function message (group: string, n: number, data = `m${n}`): Frame {
  return { type: 'message', group, position: position(n), data }
}

export const isOpen = async (client: Client): Promise<boolean> => await until(
  () => client.state === 'open', { what: 'the client to be open' }
)

/** Resolves when the open client is no more, before it does anything about it. Called before that can be. */
export function left (client: Client): Promise<void> {
  return new Promise(resolve => { client.on('state', ({ previous }) => { if (previous === 'open') resolve() }) })
}
