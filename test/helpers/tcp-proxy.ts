import type { Test } from 'tap'
import { connect, createServer, type Socket } from 'node:net'
import { freePort } from './ports.ts'

interface TcpProxy {
  readonly port: number
  /** As a Redis would be addressed behind this proxy. */
  readonly url: string
  /** Connections through the proxy now. */
  readonly links: number
  /** Resets every connection there is; new ones are let in. */
  cut (): void
  /**
   * A network that eats packets: bytes vanish both ways, nothing is closed, new connections open and stay silent.
   * When it is lifted, connections that lost bytes are reset: TCP never goes on after a hole in its stream.
   */
  blackhole (on: boolean): void
  /** New connections go to this port. */
  lead (port: number): void
  /** Nobody listens on the port: new connections are refused. Those there are go on. */
  refuse (on: boolean): Promise<void>
  /** Holds every chunk, both ways, for this long; of `subscribers` only on connections that sent a SUBSCRIBE before. 0 ends it. */
  delay (ms: number, which?: 'all' | 'subscribers'): void
  /**
   * A slow link: what it carries each way, in bytes per second, on each connection or on all together. 0 ends it. Of what is sent at the
   * same time each connection gets `turnBytes` through in turn: a packet unless you say otherwise.
   */
  limit (bytesPerSecond: number, shared?: boolean, turnBytes?: number): void
}

interface Link {
  readonly sides: readonly [Socket, Socket]
  lostBytes: boolean
  subscriber: boolean
}

/** One way of a slow link. */
interface Carrier {
  /** When it has carried all that it was given, by performance.now(). */
  freeAt: number
}

/** Not the word alone: the command link asks, too, whether it may subscribe. */
const subscribeCommand = /\*\d+\r\n\$9\r\nsubscribe\r\n/i
const packetBytes = 1_460
/** A timer is late by about this much (milliseconds): the link was not idle meanwhile. */
const lateMs = 5

/** A TCP proxy in front of a port of this machine, that can be made to misbehave. Ends with the test. */
export async function startProxy (t: Pick<Test, 'teardown'>, targetPort: number): Promise<TcpProxy> {
  const links = new Set<Link>()
  let swallowing = false
  let delayMs = 0
  let delayed: 'all' | 'subscribers' = 'all'
  let bytesPerSecond = 0
  let together = false
  let turnBytes = packetBytes
  let target = targetPort
  const common = [{ freeAt: 0 }, { freeAt: 0 }] as const

  const reset = (link: Link): void => {
    links.delete(link)
    for (const socket of link.sides) {
      // A reset while the socket is being ended is refused by libuv, and Node 20 then spins for ever when the process exits.
      if (socket.writableEnded) socket.destroy()
      else if (!socket.destroyed) socket.resetAndDestroy()
    }
  }

  const relay = (link: Link, from: Socket, to: Socket): void => {
    const own: Carrier = { freeAt: 0 }
    const shared = common[from === link.sides[0] ? 0 : 1]
    // In one queue, as two timers that are due at about the same time may fire in either order: a chunk never overtakes the one before.
    const waiting: Array<{ readonly dueAt: number, readonly action: () => void }> = []
    const passDue = (): void => {
      while (waiting[0] !== undefined && waiting[0].dueAt - performance.now() < 1) waiting.shift()?.action()
      if (waiting[0] !== undefined) setTimeout(passDue, waiting[0].dueAt - performance.now())
    }
    const pass = (action: () => void): void => {
      const now = performance.now()
      const dueAt = Math.max(delayed === 'all' || link.subscriber ? now + delayMs : now, waiting.at(-1)?.dueAt ?? 0)
      const idle = waiting.length === 0
      waiting.push({ dueAt, action })
      if (idle) passDue()
    }
    from.on('data', (chunk) => {
      link.subscriber ||= from === link.sides[0] && subscribeCommand.test(chunk.toString('latin1'))
      if (swallowing) {
        link.lostBytes = true
        return
      }
      if (bytesPerSecond > 0) {
        void trickle(together ? shared : own, from, to, chunk)
        return
      }
      pass(() => {
        // Back pressure goes through, so that a reader that stops is felt by the server.
        if (to.writable && !to.write(chunk)) {
          from.pause()
          to.once('drain', () => from.resume())
        }
      })
    })
    from.on('end', () => {
      if (swallowing) link.lostBytes = true
      else pass(() => to.end())
    })
    from.on('error', () => {}) // 'close' follows
    from.on('close', (hadError) => {
      if (swallowing) {
        link.lostBytes = true // a reset does not get through either
        return
      }
      if (hadError) reset(link)
      if (link.sides.every(socket => socket.destroyed)) links.delete(link)
    })
  }

  /** Reads no more before all of the chunk is on its way. */
  const trickle = async (carrier: Carrier, from: Socket, to: Socket, chunk: Buffer): Promise<void> => {
    from.pause()
    for (let at = 0; at < chunk.length; at += turnBytes) {
      const piece = chunk.subarray(at, at + turnBytes)
      if (bytesPerSecond > 0) {
        const now = performance.now()
        carrier.freeAt = Math.max(carrier.freeAt, now - lateMs) + piece.length / bytesPerSecond * 1_000
        if (carrier.freeAt - now > 1) await new Promise(resolve => setTimeout(resolve, carrier.freeAt - now))
      }
      to.write(piece)
    }
    from.resume()
  }

  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    const upstream = connect({ port: target, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    const link: Link = { sides: [client, upstream], lostBytes: swallowing, subscriber: false }
    links.add(link)
    relay(link, client, upstream)
    relay(link, upstream, client)
  })

  const port = await freePort()
  const listen = (): Promise<void> => new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => {
      server.off('error', reject)
      resolve()
    })
  })
  await listen()

  const proxy: TcpProxy = {
    port,
    url: `redis://127.0.0.1:${port}`,
    get links () { return links.size },
    cut () { for (const link of links) reset(link) },
    blackhole (on) {
      swallowing = on
      if (!on) for (const link of links) if (link.lostBytes) reset(link)
    },
    lead (port) { target = port },
    async refuse (on) {
      // close() stops listening at once; its callback would wait for the connections that are still up
      if (on && server.listening) server.close()
      if (!on && !server.listening) await listen()
    },
    delay (ms, which = 'all') {
      delayMs = ms
      delayed = which
    },
    limit (bytes, shared = false, inTurn = packetBytes) {
      bytesPerSecond = bytes
      together = shared
      turnBytes = inTurn
    }
  }
  t.teardown(() => {
    if (server.listening) server.close()
    for (const link of links) reset(link)
  })
  return proxy
}
