import { WebSocket } from 'ws'
import type { BenchSettings } from './arguments.ts'

/** The events of a client of the load test. */
export interface ClientHandlers {
  /** The client is in its room. `joinMs` is how long joining took after the connection was open, if the client is told. */
  ready (connectMs: number, joinMs: number | undefined): void
  received (text: string): void
  /** The client did not get in; it does not try again. */
  refused (reason: string): void
  /** An open connection ended, but not by this program. */
  lost (reason: string): void
  /** The server refused a message. */
  failed (reason: string): void
}

/** One client of the load test. */
export interface BenchClient {
  send (text: string): void
  close (): void
}

/** Where the nth client of a room connects, and what it says about itself. */
export interface ClientAddress {
  readonly url: string
  readonly token: string | undefined
  readonly headers: Readonly<Record<string, string>>
  /** The group that the client joins by itself; `undefined` where the route does that. */
  readonly group: string | undefined
}

export function addressOf ({ address, token, headers }: BenchSettings, room: string, n: number): ClientAddress {
  const numbered = (text: string): string => text.replaceAll('{n}', String(n))
  return {
    url: numbered(address).replaceAll('{room}', encodeURIComponent(room)),
    token: token === undefined ? undefined : numbered(token),
    headers: Object.fromEntries(headers.map(([name, value]) => [name, numbered(value)])),
    group: address.includes('{room}') ? undefined : room
  }
}

/** A WebSocket that sends these headers. It takes no compression, which would measure zlib. */
export function socketClass (headers: Readonly<Record<string, string>>): typeof WebSocket {
  return class extends WebSocket {
    constructor (url: string, protocols: string[]) {
      super(url, protocols, { headers, perMessageDeflate: false })
    }
  } as typeof WebSocket
}

/** Explains the HTTP status that refused a client. */
export function explainStatus (status: number): string {
  if (status === 401 || status === 403) return `${status}: who are the clients? See --token and --header`
  if (status === 404) return '404: is the path right?'
  if (status === 429 || status === 503) return `${status}: a limit of the server; see limits.*, upgradeLimit, and --connect-rate`
  return `${status} instead of an upgrade`
}

export function explainError (error: Error): string {
  const { code } = error as NodeJS.ErrnoException
  if (code === 'ECONNREFUSED') return 'nothing listens at this address'
  if (code === 'EMFILE') return 'this program may not open more files: raise its limit, with ulimit -n 65536 say'
  if (code === 'EADDRNOTAVAIL') return 'this machine has no local port left: use several machines'
  return error.message === '' ? code ?? 'the connection failed' : error.message
}
