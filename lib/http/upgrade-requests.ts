import type { EventEmitter } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'

/** What Node does with a request that offers an upgrade: `true` emits 'upgrade', `false` handles it as if nothing had been offered. */
type ShouldUpgrade = (request: IncomingMessage) => boolean

/** A server whose Node has the public hook for this decision (22.21, 24.9 and later). */
interface DecidingServer extends EventEmitter { shouldUpgradeCallback?: ShouldUpgrade }

/** The parser of a connection; Node calls `onIncoming` once the headers of a request are complete. */
interface Parser { onIncoming?: ((request: IncomingMessage, keepAlive: boolean) => unknown) | null }

/** Whether the request asks for a WebSocket; RFC 6455 4.1 requires GET, HTTP/1.1, and this one protocol. */
function offersWebsocket ({ method, headers, httpVersionMinor }: IncomingMessage): boolean {
  return method === 'GET' && httpVersionMinor > 0 && headers.upgrade?.trim().toLowerCase() === 'websocket'
}

/**
 * Keeps requests that offer any other upgrade ordinary: as soon as somebody listens for 'upgrade', Node takes every such request for an
 * upgrade and drops its body. curl --http2 and Java's HttpClient offer h2c with ordinary requests, and expect an ordinary answer.
 * `othersListen` says whether the application listens for 'upgrade' itself: then it may take other protocols.
 */
export function divertOtherUpgrades (server: EventEmitter, othersListen: () => boolean): void {
  const isUpgrade: ShouldUpgrade = request => offersWebsocket(request) || othersListen()
  const deciding: DecidingServer = server
  const decide = deciding.shouldUpgradeCallback
  if (typeof decide === 'function') {
    deciding.shouldUpgradeCallback = request => decide.call(server, request) && isUpgrade(request)
    return
  }
  // On both events: a TLS server parses what 'secureConnection' brings, a plain one what 'connection' does. Node's own listener ran before.
  const divert = (socket: Socket & { parser?: Parser | null }): void => divertConnection(socket.parser, isUpgrade)
  server.on('connection', divert)
  server.on('secureConnection', divert)
}

/** Node before `shouldUpgradeCallback`: its parser looks at `request.upgrade` when the headers are complete, and at nothing else. */
function divertConnection (parser: Parser | null | undefined, isUpgrade: ShouldUpgrade): void {
  const onIncoming = parser?.onIncoming
  if (parser === null || parser === undefined || typeof onIncoming !== 'function') return
  parser.onIncoming = (request: IncomingMessage & { upgrade?: boolean | null }, keepAlive) => {
    if (request.upgrade === true && request.method !== 'CONNECT' && !isUpgrade(request)) request.upgrade = false
    return onIncoming(request, keepAlive)
  }
}
