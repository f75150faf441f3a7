import type { Test } from 'tap'
import { request, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http'
import { randomBytes } from 'node:crypto'
import { WebSocket } from 'ws'

export interface ConnectOptions {
  readonly protocols?: string | readonly string[]
  readonly headers?: OutgoingHttpHeaders
}

/** A text frame as a `string`, a binary frame as a `Buffer`. */
export type Message = string | Buffer

export interface TestClient {
  readonly ws: WebSocket
  /** Rejects when the upgrade is refused, saying with what. */
  readonly opened: Promise<void>
  /** Also resolves, with code 1006, when the upgrade is refused. */
  readonly closed: Promise<{ readonly code: number, readonly reason: string }>
  /** Everything received so far, in order, also what `next` has handed out. */
  readonly messages: readonly Message[]
  /** The next message that `next` has not handed out yet. Rejects after `timeoutMs` (20 s) or when the socket closes first. */
  next (timeoutMs?: number): Promise<Message>
  /** Hands out messages until one fits. */
  nextWhere (fits: (message: Message) => boolean): Promise<Message>
  send (data: string | Uint8Array): void
  /** Starts the closing handshake and resolves with `closed`. */
  close (code?: number, reason?: string): Promise<{ readonly code: number, readonly reason: string }>
  /** Drops the connection without a closing handshake, as a lost network does. */
  terminate (): void
}

interface Waiter {
  readonly resolve: (message: Message) => void
  readonly reject: (err: Error) => void
}

/** A WebSocket client with a queue of what came in. Listens from the start: a message sent during the upgrade is not missed. */
export function connect (t: Test, url: string, options: ConnectOptions = {}): TestClient {
  const ws = new WebSocket(url.replace(/^http/, 'ws'), [options.protocols ?? []].flat(), { headers: options.headers })
  const messages: Message[] = []
  const waiters: Waiter[] = []
  let handedOut = 0
  let closure: Error | undefined

  const opened = new Promise<void>((resolve, reject) => {
    ws.once('open', resolve)
    ws.once('error', reject)
  })
  opened.catch(() => {}) // most tests of a refused upgrade look at `closed` or `upgradeStatus`
  ws.on('error', () => {}) // 'close' follows
  const closed = new Promise<{ code: number, reason: string }>((resolve) => {
    ws.once('close', (code, reason) => {
      closure = new Error(`the socket closed with ${code}${reason.length > 0 ? ` ${reason.toString()}` : ''}, and no further message`)
      for (const waiter of waiters.splice(0)) waiter.reject(closure)
      resolve({ code, reason: reason.toString() })
    })
  })
  ws.on('message', (data: Buffer, isBinary) => {
    const message = isBinary ? data : data.toString()
    messages.push(message)
    const waiter = waiters.shift()
    if (waiter) {
      handedOut++
      waiter.resolve(message)
    }
  })

  const client: TestClient = {
    ws,
    opened,
    closed,
    messages,
    next (timeoutMs = 20_000) {
      const ready = messages[handedOut]
      if (ready !== undefined) {
        handedOut++
        return Promise.resolve(ready)
      }
      if (closure) return Promise.reject(closure)
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          waiters.splice(waiters.indexOf(waiter), 1)
          reject(new Error(`no message within ${timeoutMs} ms, after ${messages.length} before`))
        }, timeoutMs)
        const waiter: Waiter = {
          resolve (message) { clearTimeout(timer); resolve(message) },
          reject (err) { clearTimeout(timer); reject(err) }
        }
        waiters.push(waiter)
      })
    },
    async nextWhere (fits) {
      const deadline = performance.now() + 20_000
      for (;;) {
        const message = await client.next(Math.max(deadline - performance.now(), 0))
        if (fits(message)) return message
      }
    },
    send (data) { ws.send(data) },
    close (code, reason) {
      ws.close(code, reason)
      return closed
    },
    terminate () { ws.terminate() }
  }
  t.teardown(() => ws.terminate())
  return client
}

/** What a plain HTTP client sees of an upgrade: the refusal, or 101. A connection that does open is dropped at once. */
export function upgradeStatus (
  url: string, options: ConnectOptions = {}
): Promise<{ statusCode: number, headers: IncomingHttpHeaders, body: string }> {
  return new Promise((resolve, reject) => {
    const protocols = [options.protocols ?? []].flat()
    const req = request(url.replace(/^ws/, 'http'), {
      agent: false,
      headers: {
        Connection: 'Upgrade',
        Upgrade: 'websocket',
        'Sec-WebSocket-Version': '13',
        'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
        ...(protocols.length > 0 ? { 'Sec-WebSocket-Protocol': protocols.join(', ') } : {}),
        ...options.headers
      }
    })
    req.on('error', reject)
    req.on('upgrade', (response, socket) => {
      socket.destroy()
      resolve({ statusCode: response.statusCode ?? 0, headers: response.headers, body: '' })
    })
    req.on('response', (response) => {
      let body = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => { body += chunk })
      response.on('error', reject)
      response.on('end', () => {
        req.destroy()
        resolve({ statusCode: response.statusCode ?? 0, headers: response.headers, body })
      })
    })
    req.end()
  })
}
