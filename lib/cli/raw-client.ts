import type { ClientRequest, IncomingMessage } from 'node:http'
import type { RawData } from 'ws'
import { explainError, explainStatus, socketClass, type BenchClient, type ClientAddress, type ClientHandlers } from './client.ts'

/** A plain WebSocket. The route puts it into its room, and does not tell it when. */
export class RawClient implements BenchClient {
  readonly #socket: InstanceType<ReturnType<typeof socketClass>>
  #over = false

  constructor ({ url, token, headers }: ClientAddress, timeoutMs: number, handlers: ClientHandlers) {
    const startedAt = performance.now()
    const Socket = socketClass(token === undefined ? headers : { authorization: `Bearer ${token}`, ...headers })
    const socket = this.#socket = new Socket(url, [])
    let isOpen = false
    const end = (reason: string): void => {
      if (this.#over) return
      this.#over = true
      clearTimeout(timer)
      if (isOpen) handlers.lost(reason)
      else handlers.refused(reason)
    }
    const timer = setTimeout(() => {
      end('no answer in time')
      socket.terminate()
    }, timeoutMs).unref()
    socket.on('open', () => {
      isOpen = true
      clearTimeout(timer)
      handlers.ready(performance.now() - startedAt, undefined)
    })
    socket.on('message', (data: RawData) => handlers.received(String(data)))
    socket.on('unexpected-response', (request: ClientRequest, response: IncomingMessage) => {
      response.resume()
      request.destroy()
      end(explainStatus(response.statusCode ?? 0))
    })
    socket.on('error', error => end(explainError(error)))
    socket.on('close', (code, reason) => end(`closed with ${code} ${String(reason)}`.trimEnd()))
  }

  send (text: string): void {
    if (!this.#over) this.#socket.send(text)
  }

  close (): void {
    this.#over = true
    // Do not wait for the answer: with thousands of clients that takes long and measures nothing.
    this.#socket.terminate()
  }
}
