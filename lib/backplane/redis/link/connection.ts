import type { Redis } from 'ioredis'
import { Dialer, type Address } from './connect.ts'
import { greet } from './greeting.ts'
import { namespaceOf, type RedisSource } from './source.ts'

/** A dial that takes longer in all its steps together is given up, whatever state the client library is in (milliseconds). */
const maxDialMs = 60_000
/** How long a connection that was given up may still deliver what it has (milliseconds); a silence of `drainedAfterMs` ends that. */
const drainMs = 10_000
const drainedAfterMs = 100
/** The same for messages that are nowhere else: after an outage TCP sends again only when about as much time has passed once more. */
const patientlyMs = 2_000

interface ConnectionEvents {
  /** The socket is connected; nothing was sent to Redis yet. */
  opened (): void
  /** Redis takes commands. */
  ready (): void
  /** The connection ended; the next one is on its way. */
  ended (): void
  error (error: Error): void
  /** `late`: by the connection before the present one, which was given up. */
  message (channel: Buffer, bytes: Buffer, late: boolean): void
  /** A node of a cluster took channels back. */
  moved? (): void
}

interface Previous {
  readonly client: Redis
  /** How many bytes had come on it when it was given up. */
  readonly received: number
  spent: Promise<void> | undefined
}

/**
 * The connection of a link: the present one, and a new one whenever it ends. Each connection has a client of ioredis of its own: whatever
 * state a client ends or hangs in is left behind with it.
 */
export class Connection {
  readonly #dialer: Dialer
  readonly #events: ConnectionEvents
  readonly #db: number
  /** The latest client, whatever its state. */
  #client: Redis
  /** The latest client; `undefined` from its end, or since it was given up, until the next one is dialled. */
  #present: Redis | undefined
  #dialledAt = 0
  #ready = false
  /** A message came on the present connection. */
  #delivered = false
  #timer: NodeJS.Timeout | undefined
  /** The connection before, which may still deliver what Redis sent before it was given up. */
  #previous: Previous | undefined
  #closed = false

  /**
   * `address`: where to connect to, if not to the server that the source leads to by now.
   * @throws what ioredis throws about its options
   */
  constructor (source: RedisSource, role: 'command' | 'subscribe', events: ConnectionEvents, address?: () => Address | undefined) {
    this.#dialer = new Dialer(source, role, address)
    this.#events = events
    this.#db = namespaceOf(source).db
    this.#client = this.#dial()
  }

  get redis (): Redis {
    return this.#client
  }

  get ready (): boolean {
    return this.#ready
  }

  /** Bytes that came on the present connection. */
  get received (): number {
    return bytesRead(this.#client)
  }

  /** Where the present connection leads; `undefined` when there is none, or when it is a socket of the file system. */
  get address (): Address | undefined {
    const { remoteAddress: host, remotePort: port } = (this.#client.stream ?? {}) as { remoteAddress?: string, remotePort?: number }
    return host === undefined || port === undefined ? undefined : { host, port }
  }

  /** How many bytes came in or went out on the present connection. */
  get moved (): number {
    const { bytesWritten = 0, writableLength = 0 } = (this.#client.stream ?? {}) as { bytesWritten?: number, writableLength?: number }
    return this.received + bytesWritten - writableLength
  }

  /** Whether Redis was asked something on a connection that is not ready yet. */
  get shakingHands (): boolean {
    return !this.#ready && (this.#present?.status === 'connect' || this.#present?.status === 'ready')
  }

  /** How long Redis may be silent during the handshake (milliseconds). */
  get patienceMs (): number {
    return this.#dialer.patienceMs
  }

  /**
   * Gives up the present connection, if there is one, for a new one. With `keep` it stays until it ends or `dropPrevious` is called, for
   * what it still delivers.
   */
  reset (keep = false): void {
    const client = this.#present
    if (client === undefined) return
    // If the connection delivered nothing, keep the one before it, if that still exists: it may have more to deliver.
    if (keep && this.#ready && (this.#delivered || this.#previous === undefined)) {
      this.dropPrevious()
      this.#previous = { client, received: bytesRead(client), spent: undefined }
    } else {
      discard(client)
    }
    this.#lose()
  }

  /** Leaves a server that answers but cannot be used; the sentinel that named it is asked last from now on. */
  blame (): void {
    if (this.#present === undefined) return
    this.#dialer.failed(0)
    this.reset()
  }

  /**
   * Resolves when the previous connection has delivered all that Redis sent on it until now, or brings nothing more; after ten seconds in
   * any case. `patiently`: waits for two seconds although nothing comes, once for all who ask. `undefined` where there is none.
   */
  previousDrained (patiently = false): Promise<void> | undefined {
    const previous = this.#previous
    if (previous === undefined || !patiently) return previous && this.#drain(previous, 0)
    previous.spent ??= this.#drain(previous, patientlyMs)
    return previous.spent
  }

  /** Drops the previous connection, whose messages are no longer needed. */
  dropPrevious (): void {
    if (this.#previous === undefined) return
    discard(this.#previous.client)
    this.#previous = undefined
  }

  /** Called again and again while the connection is needed, so that no dial and no other state of the client lasts forever. */
  check (): void {
    if (this.#ready || this.#present === undefined) return
    if (this.#present.status === 'end' || performance.now() - this.#dialledAt > maxDialMs) this.reset()
  }

  close (): void {
    this.#closed = true
    clearTimeout(this.#timer)
    this.dropPrevious()
    discard(this.#client)
    this.#present = undefined
    this.#ready = false
  }

  async #drain (previous: Previous, patienceMs: number): Promise<void> {
    const { client } = previous
    const startedAt = performance.now()
    const ping = { settled: false }
    const settle = (): void => { ping.settled = true }
    client.ping().then(settle, settle)
    let { received } = previous
    const waitedMs = (): number => performance.now() - startedAt
    const comes = (): boolean => bytesRead(client) > received || waitedMs() < patienceMs
    while (comes() && !ping.settled && this.#previous === previous && waitedMs() < drainMs) {
      received = bytesRead(client)
      await new Promise(resolve => setTimeout(resolve, drainedAfterMs))
    }
  }

  #dial (): Redis {
    this.#timer = undefined
    this.#dialledAt = performance.now()
    this.#delivered = false
    const client = this.#client = this.#present = this.#dialer.dial()
    client.on('connect', () => { if (client === this.#present) this.#events.opened() })
    client.on('ready', () => {
      void greet(client, this.#db, {
        ready: () => {
          this.#ready = true
          this.#dialer.succeeded()
          this.#events.ready()
        },
        refused: error => this.#events.error(error),
        stands: () => client === this.#present && client.status === 'ready'
      })
    })
    client.on('end', () => {
      if (client === this.#previous?.client) this.#previous = undefined
      else if (client === this.#present) this.#lose()
    })
    client.on('error', (error: Error) => { if (client === this.#present) this.#events.error(error) })
    const receive = (channel: Buffer, bytes: Buffer): void => {
      if (client === this.#present) {
        this.#delivered = true
        this.#events.message(channel, bytes, false)
      } else if (client === this.#previous?.client) this.#events.message(channel, bytes, true)
    }
    client.on('messageBuffer', receive)
    client.on('smessageBuffer', receive)
    client.on('moved', () => { if (client === this.#present) this.#events.moved?.() })
    return client
  }

  #lose (): void {
    this.#present = undefined
    if (!this.#ready) this.#dialer.failed(performance.now() - this.#dialledAt)
    this.#ready = false
    this.#dialLater()
    this.#events.ended()
  }

  #dialLater (): void {
    this.#timer = setTimeout(() => {
      const prepared = this.#dialer.prepare()
      if (prepared === undefined) this.#dialNext()
      else void prepared.then(() => { if (!this.#closed) this.#dialNext() })
    }, this.#dialer.pauseMs)
  }

  #dialNext (): void {
    try {
      this.#dial()
    } catch (error) {
      // The application uses the given client, too: it may have set options with which no duplicate can be made.
      this.#dialer.failed(0)
      this.#dialLater()
      this.#events.error(error as Error)
    }
  }
}

/** Ends a client at once: what is on its way is lost, and later events of the client are ignored. */
function discard (client: Redis): void {
  client.disconnect()
  // Not with QUIT: a hung server would never answer it, and a connection that is established later would stay.
  client.stream?.destroy()
}

function bytesRead ({ stream }: Redis): number {
  return (stream as { readonly bytesRead?: number } | undefined)?.bytesRead ?? 0
}
