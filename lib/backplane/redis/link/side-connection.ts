import type { Redis } from 'ioredis'
import { withDeadline } from '../../../deadline.ts'
import { WebsocketGroupsError } from '../../../errors.ts'
import { Calls, type CallOptions } from './calls.ts'
import type { Address } from './connect.ts'
import { Connection } from './connection.ts'
import type { RedisSource } from './source.ts'

/** How long the connection stays open after its last call (milliseconds). */
const usualIdleMs = 10_000

export type Command<Answer> = (redis: Redis, settled: () => boolean) => Promise<Answer>

/** What a side connection needs of its link. */
export interface MainLink {
  /** @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE while the link is down */
  assertUp (): void
  /** The address of the link's server, because its name may lead to another server by now. `undefined` if only the name is known. */
  address (): Address | undefined
  /** Turns a failure into the error that the caller gets. */
  translate (error: Error): Error
  /** Counts a call that was given up. */
  missed (): void
}

/**
 * A connection beside that of a link, to the same server: opened when it is needed, and closed when nothing needed it for a while. It never
 * outlives the connection of the link, which may lead to another server after that.
 */
export class SideConnection {
  readonly #source: RedisSource
  readonly #link: MainLink
  readonly #progress: 'received' | 'moved'
  readonly #idleMs: number
  readonly #received: ((bytes: number) => void) | undefined
  #connection: Connection | undefined
  #calls: Calls | undefined
  #underWay = 0
  #idleTimer: NodeJS.Timeout | undefined
  /** Wakes those who wait for the connection. */
  readonly #waiting = new Set<() => void>()
  #closed = false

  /**
   * `progress` says which bytes extend the deadline of a call: those that come, or also those that leave. `received` is told of each piece
   * that comes, before the call that it answers settles.
   */
  constructor (
    source: RedisSource, link: MainLink, progress: 'received' | 'moved', idleMs = usualIdleMs, received?: (bytes: number) => void
  ) {
    this.#source = source
    this.#link = link
    this.#progress = progress
    this.#idleMs = idleMs
    this.#received = received
  }

  /** Whether a call can be sent at once. */
  get ready (): boolean {
    return this.#connection?.ready === true
  }

  get closed (): boolean { return this.#closed }

  /** Opens the connection if necessary. Resolves with whether it is ready, after `ms` milliseconds at the latest. */
  async whenReady (ms: number): Promise<boolean> {
    if (this.#closed) return false
    this.#open()
    if (this.ready) return true
    // Nobody else looks after a dial that hangs.
    this.#connection?.check()
    let tell = (): void => {}
    const told = new Promise<void>(resolve => this.#waiting.add(tell = resolve))
    // Somebody needs the connection: its idle time is over.
    clearTimeout(this.#idleTimer)
    await withDeadline(told, ms, () => undefined)
    this.#waiting.delete(tell)
    this.#closeLater()
    return this.ready
  }

  /** @throws {WebsocketGroupsError} as `Link.run` */
  async run<Answer> (command: Command<Answer>, options: CallOptions): Promise<Answer> {
    const [connection, calls] = [this.#connection, this.#calls]
    if (connection?.ready !== true || calls === undefined) throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'not connected')
    this.#underWay++
    clearTimeout(this.#idleTimer)
    try {
      return await calls.run(async settled => await command(connection.redis, settled), options)
    } finally {
      this.#underWay--
      this.#closeLater()
    }
  }

  /** Gives the connection up for a new one; what is under way has an unknown outcome. */
  reset (): void {
    this.#connection?.reset()
  }

  /** Ends the connection; the next call that needs one opens it anew. What is under way has an unknown outcome. */
  end (): void {
    clearTimeout(this.#idleTimer)
    const [connection, calls] = [this.#connection, this.#calls]
    this.#connection = this.#calls = undefined
    connection?.close()
    calls?.fail('the link to Redis broke')
    this.#tell()
  }

  close (): void {
    this.#closed = true
    this.end()
  }

  #open (): void {
    if (this.#connection !== undefined) return
    const calls = this.#calls = new Calls({
      received: () => this.#connection?.[this.#progress] ?? 0,
      answered () {},
      missed: silent => {
        this.#link.missed()
        // Nothing comes any more, and no ping would notice that: the next call should not wait in vain, too.
        if (silent) this.reset()
      },
      translate: error => this.#link.translate(error)
    })
    this.#connection = new Connection(this.#source, 'command', {
      opened () {},
      ready: () => {
        this.#watch()
        this.#tell()
      },
      ended: () => calls.fail('the link to Redis broke'),
      error () {},
      message () {}
    }, () => this.#link.address())
  }

  #watch (): void {
    const received = this.#received
    if (received !== undefined) this.#connection?.redis.stream.on('data', (bytes: Buffer) => received(bytes.length))
  }

  #closeLater (): void {
    clearTimeout(this.#idleTimer)
    if (this.#underWay > 0 || this.#waiting.size > 0 || this.#connection === undefined) return
    this.#idleTimer = setTimeout(() => this.end(), this.#idleMs).unref()
  }

  #tell (): void {
    for (const tell of this.#waiting) tell()
  }
}
