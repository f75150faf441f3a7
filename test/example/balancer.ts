import type { Test } from 'tap'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { freePort } from '../helpers/ports.ts'

/** One address for several instances, as any load balancer is: connections go to the next one that takes them. Resolves with its URL. */
export async function startBalancer (t: Test, targets: readonly number[]): Promise<string> {
  const sockets = new Set<Socket>()
  let turn = 0
  const track = (socket: Socket): void => {
    sockets.add(socket)
    socket.on('error', () => {}) // 'close' follows
    socket.on('close', () => sockets.delete(socket))
  }
  const server = createServer({ pauseOnConnect: true }, client => {
    track(client)
    const first = turn++
    const tryNext = (tries: number): void => {
      const upstream = connect({ host: '127.0.0.1', port: targets[(first + tries) % targets.length] ?? 0 })
      track(upstream)
      upstream.once('connect', () => {
        client.pipe(upstream).pipe(client)
        client.on('close', () => upstream.destroy())
        upstream.on('close', () => client.destroy())
      })
      upstream.once('error', () => {
        if (!upstream.connecting && upstream.bytesRead > 0) return
        if (tries + 1 < targets.length) tryNext(tries + 1)
        else client.destroy()
      })
    }
    tryNext(0)
  })
  const port = await freePort()
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return `http://127.0.0.1:${port}`
}
