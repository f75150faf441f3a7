import { connect, type Client, type ClientError } from '../client/index.ts'
import { explainError, explainStatus, socketClass, type BenchClient, type ClientAddress, type ClientHandlers } from './client.ts'

/** The client of this package: it comes back after a break, and gets what it missed. */
export class FramedClient implements BenchClient {
  readonly #client: Client
  readonly #handlers: ClientHandlers
  #over = false

  constructor ({ url, token, headers, group }: ClientAddress, timeoutMs: number, handlers: ClientHandlers) {
    this.#handlers = handlers
    const startedAt = performance.now()
    let openAt = 0
    let isReady = false
    /** How the server ended the latest connection before the client was in its room. */
    let ended = ''
    const client = this.#client = connect(url, { token, WebSocket: socketClass(headers), connectTimeoutMs: timeoutMs })
    const refuse = (reason: string): void => {
      if (this.#over || isReady) return
      clearTimeout(timer)
      this.close()
      handlers.refused(reason)
    }
    const timer = setTimeout(() => refuse(openAt === 0 ? 'no answer in time' : `no answer to joining in time${ended}`), timeoutMs).unref()
    const ready = (joinMs: number | undefined): void => {
      if (this.#over || isReady) return
      isReady = true
      clearTimeout(timer)
      handlers.ready(openAt - startedAt, joinMs)
    }
    client.on('state', ({ state, previous, code, reason }) => {
      if (state === 'open') openAt ||= performance.now()
      if (previous !== 'open' || this.#over) return
      if (isReady) handlers.lost(`closed with ${code} ${reason}`.trimEnd())
      else ended = `: closed with ${code} ${reason}`.trimEnd()
    })
    client.on('joined', joined => {
      if (group === undefined || joined.group === group) ready(performance.now() - openAt)
    })
    client.on('message', ({ data }) => handlers.received(typeof data === 'string' ? data : Buffer.from(data).toString('latin1')))
    client.on('error', error => {
      if (isReady) handlers.failed(`${error.code}: ${error.message}`)
      else refuse(explain(error))
    })
    client.on('close', ({ code, error }) => refuse(error === undefined ? `closed with ${code}` : explain(error)))
    if (group !== undefined) client.join(group).catch((error: Error) => refuse(`the route does not let clients join: ${error.message}`))
  }

  send (text: string): void {
    this.#client.send(text).catch((error: Error & { readonly code?: string }) => {
      if (!this.#over) this.#handlers.failed(`${error.code}: ${error.message}`)
    })
  }

  close (): void {
    this.#over = true
    this.#client.close()
  }
}

function explain ({ status, cause, message }: ClientError): string {
  if (status !== undefined) return explainStatus(status)
  return cause instanceof Error ? explainError(cause) : message
}
