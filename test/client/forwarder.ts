import type { Test } from 'tap'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

/** What a load balancer is to a browser: one port, and any instance behind it. */
export interface Forwarder {
  readonly port: number
  /** Where new connections go; `undefined`: they are refused. */
  to (port: number | undefined): void
  /** Breaks all connections. */
  cut (): void
  /** Swallows what both sides send, without a word; what was swallowed breaks its connection at the end. */
  silence (on: boolean): void
}

export async function startForwarder (t: Test, first: number): Promise<Forwarder> {
  const sockets = new Set<Socket>()
  let target: number | undefined = first
  let silent = false
  const relay = (from: Socket, to: Socket): void => {
    sockets.add(from)
    from.on('data', chunk => { if (!silent) to.write(chunk) })
    from.on('error', () => {})
    from.on('close', () => {
      sockets.delete(from)
      if (!silent) to.destroy()
    })
  }
  const server = createServer(client => {
    if (target === undefined) return client.destroy()
    const upstream = connect(target, '127.0.0.1')
    relay(client, upstream)
    relay(upstream, client)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const cut = (): void => { for (const socket of sockets) socket.destroy() }
  t.teardown(() => {
    silent = false
    server.close()
    cut()
  })
  return {
    port: (server.address() as AddressInfo).port,
    to (port) { target = port },
    cut,
    silence (on) {
      silent = on
      if (!on) cut()
    }
  }
}
