import type { StreamStore, StreamWrite, StreamWritten } from '../backplane/backplane.ts'
import { describeError } from '../connection/error-answer.ts'
import { deferred } from '../deadline.ts'
import type { EnvelopeFactory } from '../delivery/envelopes.ts'
import { isOutage, WebsocketGroupsError } from '../errors.ts'
import { drawId } from '../ids.ts'
import type { Stream, StreamState } from '../types.ts'
import { asJson, type ResolvedStreamOptions } from './options.ts'
import { packEnding, pieceEnvelope, type Ending, type Head, type Piece } from './wire.ts'

/** An open stream writes at least this often (milliseconds). Readers wait for twice as long; `silentMs` is three times as long. */
const beatMs = 5_000
/** How long to wait before a failed write is repeated, and for how long to repeat it (milliseconds). */
const againMs = 250
const patienceMs = 60_000

/** How long an open stream is kept at least (milliseconds), whatever its `keepMs`: its producer may think, or be cut off. */
const openKeepMs = 2 * patienceMs

/** A high surrogate at the end: the other half of the character comes with the next piece. */
const halfCharacter = /[\ud800-\udbff]$/
const loneSurrogates = /\p{Surrogate}/gu

interface StreamHost {
  readonly store: StreamStore
  readonly envelopes: Pick<EnvelopeFactory, 'message' | 'origin'>
  /** The stream has ended, and its end is stored or cannot be stored. */
  ended (stream: TokenStream): void
}

/** A stream that this process makes. Gathers what is appended, and writes one piece after another; a repeated piece keeps its place. */
export class TokenStream implements Stream {
  readonly group: string
  readonly id: string
  readonly epoch = drawId()
  readonly owner: string | undefined
  /** Resolves when the end is stored or cannot be stored. */
  readonly closed: Promise<void>
  readonly #options: ResolvedStreamOptions
  readonly #host: StreamHost
  readonly #head: string
  readonly #controller = new AbortController()
  readonly #stored = deferred()
  readonly #closed = deferred()
  /** The whole text, in case the store loses it. */
  #text = ''
  /** How many bytes were appended, and how many of these are written. */
  #bytes = 0
  #written = 0
  #waiting = ''
  #half = ''
  #made = false
  #ending: Ending | undefined
  #abandoned = false
  #timer: NodeJS.Timeout | undefined
  #writing = false
  #appendedAt = performance.now()
  #writtenAt = -Infinity
  #renewedAt = -Infinity

  constructor (group: string, id: string, options: ResolvedStreamOptions, host: StreamHost) {
    this.group = group
    this.id = id
    this.owner = options.owner
    this.closed = this.#closed.promise
    this.#options = options
    this.#host = host
    const head: Head = { by: host.envelopes.origin, owner: options.owner, meta: options.meta }
    this.#head = JSON.stringify(head)
    // Readers learn of the stream before its first piece.
    this.#schedule(0)
  }

  get state (): StreamState {
    return this.#ending?.state ?? 'open'
  }

  get signal (): AbortSignal {
    return this.#controller.signal
  }

  append (text: string): boolean {
    if (typeof text !== 'string') throw new WebsocketGroupsError('WSG_DATA_INVALID', `a stream takes strings, got ${typeof text}`)
    if (this.#ending !== undefined) return false
    this.#appendedAt = performance.now()
    const whole = this.#half + text
    this.#half = halfCharacter.exec(whole)?.[0] ?? ''
    return this.#add(this.#half === '' ? whole : whole.slice(0, -1))
  }

  async done (result?: unknown): Promise<void> {
    const kept = asJson('result', result)
    if (this.#ending !== undefined) return
    this.#addHalf()
    this.#end({ state: 'done', result: kept })
    await this.#stored.promise
  }

  async fail (error: unknown): Promise<void> {
    if (this.#ending !== undefined) return
    this.#endFailed(error)
    await this.#stored.promise
  }

  async pipe (source: AsyncIterable<string>): Promise<StreamState> {
    try {
      for await (const text of source) if (!this.append(text)) break
      await this.done()
    } catch (error) {
      await this.fail(error).catch(() => {})
    }
    // Of a stream that was stopped, `done` and `fail` return at once: wait until the end is stored.
    await this.closed
    return this.state
  }

  async [Symbol.asyncDispose] (): Promise<void> {
    await this.fail(new Error('its producer left the stream open'))
  }

  /** Ends the stream on request. Returns whether it was open. */
  stop (): boolean {
    if (this.#ending !== undefined) return false
    this.#addHalf()
    this.#end({ state: 'stopped' }, new WebsocketGroupsError('WSG_STREAM_STOPPED'))
    return true
  }

  /** Ends the stream as failed, with this reason for the producer: it was idle, the text is too long, or the process closes. */
  cut (error: WebsocketGroupsError): void {
    if (this.#ending === undefined) this.#endFailed(error, error)
  }

  /** Called regularly. Ends the stream if its producer is idle, else lets readers know now and then that the stream goes on. */
  beat (): void {
    const now = performance.now()
    if (this.#ending !== undefined) return
    const { idleMs } = this.#options
    if (now - this.#appendedAt > idleMs) return this.cut(new WebsocketGroupsError('WSG_TIMEOUT', `nothing was appended for ${idleMs} ms`))
    if (now - this.#writtenAt > beatMs) this.#schedule(0)
  }

  #add (text: string): boolean {
    const sound = text.replace(loneSurrogates, '\ufffd')
    const bytes = Buffer.byteLength(sound)
    const { maxBytes, flushMs } = this.#options
    if (this.#bytes + bytes > maxBytes) {
      this.cut(new WebsocketGroupsError('WSG_STREAM_LIMIT', `the text is longer than ${maxBytes} bytes`))
      return false
    }
    this.#bytes += bytes
    this.#text += sound
    this.#waiting += sound
    this.#schedule(flushMs)
    return true
  }

  /** Appends a half character that waits: its other half will not come. */
  #addHalf (): void {
    const half = this.#half
    this.#half = ''
    if (half !== '') this.#add(half)
  }

  #endFailed (error: unknown, reason?: WebsocketGroupsError): void {
    const { code, message } = describeError(error)
    this.#end({ state: 'failed', error: { code, message } }, reason)
  }

  #end (ending: Ending, reason?: WebsocketGroupsError): void {
    // The half character that `done` and `stop` add may exceed the limit, which ends the stream as failed before they do.
    if (this.#ending !== undefined) return
    this.#ending = ending
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#schedule(0)
    if (reason !== undefined) this.#controller.abort(reason)
  }

  /** Writes this many milliseconds after the last write, or later when one is under way. */
  #schedule (afterMs: number): void {
    if (this.#writing || this.#timer !== undefined || this.#abandoned) return
    const waitMs = Math.max(0, Math.min(afterMs, this.#writtenAt + afterMs - performance.now()))
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      void this.#flush()
    }, waitMs)
  }

  async #flush (): Promise<void> {
    this.#writing = true
    const [text, ending] = [this.#waiting, this.#ending]
    this.#waiting = ''
    const piece = { at: this.#written, to: this.#written + Buffer.byteLength(text), text }
    try {
      await this.#write(piece, ending)
    } catch (error) {
      return this.abandon(error as Error)
    } finally {
      this.#writing = false
    }
    this.#written = piece.to
    if (ending === undefined) {
      if (this.#waiting !== '' || this.#ending !== undefined) this.#schedule(this.#ending === undefined ? this.#options.flushMs : 0)
      return
    }
    this.#stored.resolve()
    this.#leave()
  }

  /** Resolves when the piece is stored and published. @throws the reason why it never will be */
  async #write (piece: Piece, ending: Ending | undefined): Promise<void> {
    const giveUpAt = performance.now() + patienceMs
    for (let whole = !this.#made; ;) {
      const renew = ending !== undefined || whole || performance.now() - this.#renewedAt > beatMs
      const startedAt = performance.now()
      try {
        const written = await this.#host.store.write(this.#writeOf(piece, ending, whole, renew))
        this.#writtenAt = startedAt
        if (written === 'written') {
          this.#made = true
          if (renew) this.#renewedAt = startedAt
          return
        }
        if (written !== 'lost') throw refusalOf(written)
        whole = true
      } catch (error) {
        const passes = isOutage(error) && performance.now() < giveUpAt
        if (!passes || this.#abandoned) throw error
        await new Promise(resolve => { setTimeout(resolve, againMs) })
      }
    }
  }

  /** `whole`: stores the text from its beginning, because the store does not have it or has lost it. Members get the piece alone. */
  #writeOf (piece: Piece, ending: Ending | undefined, whole: boolean, renew: boolean): StreamWrite {
    const { group, id, epoch } = this
    const { keepMs, meta } = this.#options
    const text = whole ? Buffer.from(this.#text).toString('utf8', 0, piece.to) : piece.text
    return {
      group,
      id,
      epoch,
      head: whole ? this.#head : undefined,
      at: whole ? 0 : piece.at,
      text,
      end: ending === undefined ? undefined : packEnding(ending),
      keepMs: ending === undefined ? Math.max(keepMs, openKeepMs) : keepMs,
      renew,
      envelope: pieceEnvelope(this.#host.envelopes, this, epoch, piece, ending, meta)
    }
  }

  /** Gives up a stream that cannot be written any more. Its readers notice that the stream is silent. */
  abandon (error: Error): void {
    this.#abandoned = true
    clearTimeout(this.#timer)
    const wasOpen = this.#ending === undefined
    this.#ending ??= { state: 'failed' }
    this.#waiting = ''
    this.#stored.reject(error)
    this.#leave()
    if (wasOpen) this.#controller.abort(error)
  }

  #leave (): void {
    this.#closed.resolve()
    this.#host.ended(this)
  }
}

function refusalOf (written: Exclude<StreamWritten, 'written' | 'lost'>): WebsocketGroupsError {
  switch (written) {
    case 'taken': return new WebsocketGroupsError('WSG_STREAM_TAKEN')
    case 'full': return new WebsocketGroupsError('WSG_STREAM_LIMIT', 'the group has as many streams as it may have')
    default: return new WebsocketGroupsError('WSG_STREAM_LOST')
  }
}
