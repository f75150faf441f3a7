import { Emitter } from './emitter.ts'
import { ClientError } from './errors.ts'
import type { Client } from './index.ts'
import type { Message } from './types.ts'

/** `open`: it grows. `stopped`: somebody stopped it before its producer was done. */
export type StreamState = 'open' | 'done' | 'failed' | 'stopped'

/** A stream of tokens as this client knows it: another object after each change. */
export interface StreamView {
  readonly group: string
  readonly id: string
  /** All of the text so far. */
  readonly text: string
  readonly state: StreamState
  /** What its producer said of it at the beginning. */
  readonly meta: unknown
  /** What its producer said at the end. */
  readonly result: unknown
  /** Why it failed. */
  readonly error: { readonly code: string, readonly message: string } | undefined
}

export interface StreamsOptions {
  /** How long nothing may come before an open stream is read again, and up to half as long again (milliseconds). @default 10_000 */
  readonly quietMs?: number | undefined
  /** How many streams that ended are kept, the latest. @default 200 */
  readonly maxEnded?: number | undefined
}

type Heard = Readonly<{ stream: StreamView }>

/** A piece, or the answer to a read: as docs/protocol.md says. */
interface Part extends Partial<Pick<StreamView, 'meta' | 'result' | 'error'>> {
  readonly id: string
  readonly epoch: string
  readonly at: number
  readonly to: number
  readonly text: string
  readonly end?: StreamState
}

/** A stream, and how far it was read. */
interface Entry {
  view: StreamView
  epoch: string
  /** Bytes of the text. */
  to: number
  /** Whether anything was read of it. */
  known: boolean
  reading: boolean
  /** The latest piece that came during a read and did not follow what was known: the answer may be older than the piece. */
  missed: Part | undefined
  dueAt: number
  /** Numbers the ends of streams, in their order. */
  ended: number
}

const type = 'wsg.stream'
const tickMs = 1_000
/** How long after a failed read the next one follows (milliseconds). */
const againMs = 2_000

/**
 * Reads the streams of tokens in the client's groups, now and after each break. Call it before anything is received: right after
 * `connect`. Ends with the client.
 */
export function streamsOf (client: Client, options?: StreamsOptions): Streams {
  return new Streams(client, options)
}

/** The streams of tokens in the groups of one client. */
export class Streams extends Emitter<Heard> {
  readonly #client: Client
  readonly #quietMs: number
  readonly #maxEnded: number
  /** Streams by group, then by id. */
  readonly #groups = new Map<string, Map<string, Entry>>()
  #ticker: ReturnType<typeof setInterval> | undefined
  #ends = 0

  constructor (client: Client, { quietMs = 10_000, maxEnded = 200 }: StreamsOptions = {}) {
    super()
    this.#client = client
    this.#quietMs = quietMs
    this.#maxEnded = maxEnded
    client.on('message', message => this.#received(message))
    client.on('joined', ({ group }) => { void this.#joined(group) })
    client.on('left', ({ group }) => { this.#groups.delete(group) })
    client.on('close', () => clearInterval(this.#ticker))
  }

  /** A stream as it is now: the same object as long as nothing changes. `undefined` when none is known. */
  get (group: string, id: string): StreamView | undefined {
    const entry = this.#groups.get(group)?.get(id)
    return entry?.known ? entry.view : undefined
  }

  /** The streams of a group, in the order in which this client heard of them. */
  list (group: string): StreamView[] {
    return [...this.#groups.get(group)?.values() ?? []].filter(({ known }) => known).map(({ view }) => view)
  }

  /**
   * Stops a stream, whichever process makes it. Resolves with whether it was open; rejects with `WSG_FORBIDDEN` for anybody but its owner
   * and those whom the route lets, and as `send`.
   */
  async stop (group: string, id: string): Promise<boolean> {
    return (await this.#ask<{ readonly stopped: boolean }>('stop', { group, id })).stopped
  }

  async #ask<Answer> (name: string, data: object): Promise<Answer> {
    return (await this.#client.send(JSON.stringify({ type: `${type}.${name}`, data }))).data as Answer
  }

  #received ({ group, data }: Message): void {
    const piece = pieceIn(data)
    if (piece === undefined || group === undefined) return
    const entry = this.#entry(group, piece.id)
    entry.dueAt = this.#quietAt()
    if (this.#apply(entry, piece)) return
    if (entry.reading) entry.missed = piece
    else void this.#read(entry)
  }

  async #joined (group: string): Promise<void> {
    // Only streams that are known now can prove lost: one that begins while the server reads the list may be missing in it.
    const known = [...this.#groups.get(group)?.values() ?? []]
    try {
      const { ids } = await this.#ask<{ readonly ids: readonly string[] }>('list', { group })
      for (const entry of known) {
        if (!ids.includes(entry.view.id)) this.#lost(entry)
      }
      for (const id of ids) {
        // The group may have been left during a read.
        if (!this.#client.groups.includes(group)) return
        const entry = this.#entry(group, id)
        if (entry.view.state === 'open' && !entry.reading) await this.#read(entry)
      }
    } catch (error) {
      // After a break the client joins again.
      const passes = ['WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT', 'WSG_RATE_LIMITED'].includes(String((error as Partial<ClientError>).code))
      if (passes) setTimeout(() => { if (this.#client.groups.includes(group)) void this.#joined(group) }, againMs)
    }
  }

  /** Reads until every piece that came follows what is known. Never rejects. */
  async #read (entry: Entry): Promise<void> {
    const { view: { group, id } } = entry
    entry.reading = true
    try {
      let done
      do {
        const { epoch, to: from } = entry
        const answer = await this.#ask<Part>('read', { group, id, epoch, from })
        const { missed } = entry
        entry.missed = undefined
        done = this.#apply(entry, answer) && (!missed || this.#apply(entry, missed))
      } while (!done && entry.view.state === 'open')
      entry.dueAt = this.#quietAt()
    } catch (error) {
      const { code } = error as Partial<ClientError>
      if (code === 'WSG_STREAM_UNKNOWN') this.#lost(entry)
      // Without a connection the client leaves a group and hears no `left`.
      else if (code === 'WSG_FORBIDDEN' && !this.#client.groups.includes(group)) this.#groups.delete(group)
      else entry.dueAt = Date.now() + againMs
    } finally {
      entry.reading = false
      entry.missed = undefined
    }
  }

  /** Adds the part to the text. Returns `false` when the stream must be read, because the part does not follow what is known. */
  #apply (entry: Entry, part: Part): boolean {
    const { view, epoch, to } = entry
    const isSame = epoch === part.epoch
    if (isSame && (view.state !== 'open' || part.to < to || (part.to === to && !part.end))) return true
    const follows = isSame && part.at === to
    if (!follows && part.at !== 0) return false
    const { text, end = 'open', meta = isSame ? view.meta : undefined, result, error } = part
    entry.view = { ...view, text: follows ? view.text + text : text, state: end, meta, result, error }
    entry.epoch = part.epoch
    entry.to = part.to
    entry.known = true
    this.#tell(entry)
    return true
  }

  /** The store has the stream no more. That is no loss if its end is known, which may come while it is read. */
  #lost (entry: Entry): void {
    if (entry.view.state !== 'open') return
    const error = { code: 'WSG_STREAM_UNKNOWN', message: 'the stream can no longer be read' }
    entry.view = { ...entry.view, state: 'failed', error }
    // If its producer writes it again, it is read from the beginning.
    entry.epoch = ''
    entry.to = 0
    if (entry.known) this.#tell(entry)
    else this.#groups.get(entry.view.group)?.delete(entry.view.id)
  }

  #tell (entry: Entry): void {
    const { view } = entry
    if (view.state !== 'open') {
      entry.ended = ++this.#ends
      this.#forgetOldest()
    }
    const failures: unknown[] = []
    this.dispatch('stream', view, error => failures.push(error))
    // As any uncaught error: a listener that throws holds up no other one.
    for (const failure of failures) queueMicrotask(() => { throw failure })
  }

  #entry (group: string, id: string): Entry {
    const streams = this.#groups.get(group) ?? new Map<string, Entry>()
    this.#groups.set(group, streams)
    const view: StreamView = { group, id, text: '', state: 'open', meta: undefined, result: undefined, error: undefined }
    const entry = streams.get(id) ??
      { view, epoch: '', to: 0, known: false, reading: false, missed: undefined, dueAt: this.#quietAt(), ended: 0 }
    streams.set(id, entry)
    this.#ticker ??= setInterval(() => this.#tick(), tickMs)
    return entry
  }

  /** Reads the open streams that were quiet for too long: their ends may have been missed, or their producers may be gone. */
  #tick (): void {
    let open = 0
    for (const streams of this.#groups.values()) {
      for (const entry of streams.values()) {
        if (entry.view.state !== 'open') continue
        open++
        if (Date.now() > entry.dueAt && !entry.reading && this.#client.state === 'open') void this.#read(entry)
      }
    }
    if (open > 0) return
    clearInterval(this.#ticker)
    this.#ticker = undefined
  }

  /** When to read a stream that stays quiet; at random, so that not all clients ask at once. */
  #quietAt (): number {
    return Date.now() + this.#quietMs * (1 + Math.random() / 2)
  }

  #forgetOldest (): void {
    const ended = [...this.#groups.values()].flatMap(streams => [...streams.values()]).filter(({ view }) => view.state !== 'open')
      .sort((a, b) => a.ended - b.ended)
    for (const { view: { group, id } } of ended.slice(0, Math.max(0, ended.length - this.#maxEnded))) this.#groups.get(group)?.delete(id)
  }
}

/** `undefined` for messages of other kinds: they are for other handlers. */
function pieceIn (data: unknown): Part | undefined {
  try {
    // A client that takes JSON as it is gets values, others text.
    const value = typeof data === 'string' && data.startsWith(`{"type":"${type}"`) ? JSON.parse(data) as unknown : data
    const { type: name, data: piece } = value as { readonly type?: unknown, readonly data?: Part }
    return name === type ? piece : undefined
  } catch {
    return undefined // text of another kind
  }
}
