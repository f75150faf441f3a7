import { setTimeout as sleep } from 'node:timers/promises'
import { silentMs, type Backplane, type StreamName, type StreamStore } from '../backplane/backplane.ts'
import { withDeadline } from '../deadline.ts'
import type { EnvelopeFactory } from '../delivery/envelopes.ts'
import { WebsocketGroupsError } from '../errors.ts'
import { assertGroupName } from '../group-name.ts'
import type { Stream, StreamOptions, StreamReading } from '../types.ts'
import { resolveStreamOptions } from './options.ts'
import { TokenStream } from './token-stream.ts'
import { headOf, packEnding, pieceEnvelope, unpackEnding, type Ending, type Head } from './wire.ts'

const maxStreams = 1_000
const maxStreamsPerOwner = 50
const tickMs = 500
/** How long storing the ends of streams may take when their process closes (milliseconds). */
const closeMs = 500
/**
 * How long after a first look a second one tells whether a silent stream is lost (milliseconds). After an outage of the backplane all
 * streams look silent, until their producers have written again.
 */
const secondLookMs = 1_000
/** How long a lost stream can still be read (milliseconds). */
const lostKeepMs = 300_000

/** What a reader already has of a stream: the text of this epoch up to byte `from`. */
interface Known {
  readonly epoch?: string | undefined
  readonly from: number
}

/** The text of a stream from a byte on, with its head and its ending. */
interface StreamPart {
  readonly epoch: string
  readonly head: Head
  readonly at: number
  readonly to: number
  readonly text: string
  readonly ending: Ending | undefined
}

/** The streams that this process makes, and those that it reads. */
export class Streams {
  readonly #backplane: Pick<Backplane, 'streams'>
  readonly #envelopes: EnvelopeFactory
  readonly #refused: () => void
  readonly #open = new Map<string, TokenStream>()
  readonly #owners = new Map<string, number>()
  /** Reads under way: callers who ask for the same meanwhile share the read. */
  readonly #reads = new Map<string, Promise<StreamPart | undefined>>()
  #ticker: NodeJS.Timeout | undefined
  #isClosed = false

  /** `refused` is called when a limit refuses a stream. */
  constructor (backplane: Pick<Backplane, 'streams'>, envelopes: EnvelopeFactory, refused: () => void = () => {}) {
    this.#backplane = backplane
    this.#envelopes = envelopes
    this.#refused = refused
  }

  /** How many open streams this process makes. */
  get size (): number {
    return this.#open.size
  }

  /** As `Registry.stream`. */
  begin (group: string, id: string, raw: StreamOptions = {}): Stream {
    assertGroupName(group)
    const options = resolveStreamOptions(id, raw)
    const store = this.#store
    if (this.#isClosed) throw new WebsocketGroupsError('WSG_CLOSED')
    const { owner } = options
    const ownersStreams = owner === undefined ? 0 : this.#owners.get(owner) ?? 0
    if (this.#open.size >= maxStreams || ownersStreams >= maxStreamsPerOwner) {
      this.#refused()
      const [who, most] = ownersStreams >= maxStreamsPerOwner ? ['the owner', maxStreamsPerOwner] : ['this process', maxStreams]
      throw new WebsocketGroupsError('WSG_STREAM_LIMIT', `${who} has ${most} open streams`)
    }
    const key = keyOf({ group, id })
    if (this.#open.has(key)) throw new WebsocketGroupsError('WSG_STREAM_TAKEN')
    const stream = new TokenStream(group, id, options, { store, envelopes: this.#envelopes, ended: stream => this.#ended(key, stream) })
    this.#open.set(key, stream)
    if (owner !== undefined) this.#owners.set(owner, ownersStreams + 1)
    this.#ticker ??= setInterval(() => { for (const stream of this.#open.values()) stream.beat() }, tickMs).unref()
    return stream
  }

  /** Stops a stream of this process. Returns whether it was open. */
  stopHere (name: StreamName): boolean {
    return this.#open.get(keyOf(name))?.stop() ?? false
  }

  /** Returns what follows the part that the reader knows, or the whole text where the reader knows another stream. */
  async read (name: StreamName, { epoch, from }: Known): Promise<StreamPart | undefined> {
    const part = await this.#readOnce(name, from)
    const follows = part === undefined || from === 0 || (part.to >= from && part.epoch === epoch)
    return follows ? part : await this.#readOnce(name, 0)
  }

  /** As `Registry.readStream`. */
  async readAll (name: StreamName): Promise<StreamReading | undefined> {
    const part = await this.read(name, { from: 0 })
    if (part === undefined) return undefined
    const { text, head: { owner, meta }, ending: { state, ...more } = { state: 'open' as const } } = part
    return { id: name.id, text, state, ...(owner === undefined ? {} : { owner }), ...(meta === undefined ? {} : { meta }), ...more }
  }

  /** Returns who makes the stream, and for whom; `undefined` for a stream that is not open. */
  async headOfOpen (name: StreamName): Promise<Head | undefined> {
    const here = this.#open.get(keyOf(name))
    if (here !== undefined) return { by: this.#envelopes.origin, owner: here.owner }
    const part = await this.#readOnce(name, Number.MAX_SAFE_INTEGER)
    return part === undefined || part.ending !== undefined ? undefined : part.head
  }

  /** The ids of the group's streams, open and ended. */
  async list (group: string): Promise<readonly string[]> {
    assertGroupName(group)
    return await this.#store.list(group)
  }

  /** Resolves when no stream is open any more, or after this many milliseconds. */
  async settled (ms: number): Promise<void> {
    await withDeadline(Promise.all(Array.from(this.#open.values(), async ({ closed }) => await closed)), ms, () => undefined)
  }

  /** Ends the open streams, and begins no more. An end that is not stored within `closeMs` is given up. */
  async close (): Promise<void> {
    this.#isClosed = true
    for (const stream of [...this.#open.values()]) stream.cut(new WebsocketGroupsError('WSG_CLOSED'))
    await this.settled(closeMs)
    clearInterval(this.#ticker)
    for (const stream of [...this.#open.values()]) stream.abandon(new WebsocketGroupsError('WSG_CLOSED'))
  }

  /** @throws {WebsocketGroupsError} WSG_OPTION_INVALID: the backplane has no streams */
  get #store (): StreamStore {
    const { streams } = this.#backplane
    if (streams !== undefined) return streams
    throw new WebsocketGroupsError('WSG_OPTION_INVALID', 'this backplane has no streams')
  }

  async #readOnce (name: StreamName, from: number): Promise<StreamPart | undefined> {
    const key = `${keyOf(name)}\0${from}`
    const underWay = this.#reads.get(key)
    if (underWay !== undefined) return await underWay
    const reading = this.#readStored(name, from).finally(() => this.#reads.delete(key))
    this.#reads.set(key, reading)
    return await reading
  }

  async #readStored (name: StreamName, from: number): Promise<StreamPart | undefined> {
    const first = await this.#store.read(name, from)
    const isMine = first !== undefined && this.#open.get(keyOf(name))?.epoch === first.epoch
    const isSuspect = first?.silent === true && !isMine
    if (isSuspect) await sleep(secondLookMs)
    const stored = isSuspect ? await this.#store.read(name, from) : first
    if (stored === undefined) return undefined
    const { epoch, bytes, text, silent } = stored
    const ending = silent && !isMine ? await this.#endLost(name, epoch, bytes) : unpackEnding(stored.end)
    return { epoch, head: headOf(stored), at: bytes - text.length, to: bytes, text: text.toString(), ending }
  }

  /** Ends a silent stream for all readers. If several instances try, one succeeds, and the others read its ending. */
  async #endLost (name: StreamName, epoch: string, bytes: number): Promise<Ending | undefined> {
    const { code, message } = new WebsocketGroupsError('WSG_STREAM_LOST')
    const ending = { state: 'failed', error: { code, message } } as const
    const written = await this.#store.write({
      ...name,
      epoch,
      at: bytes,
      text: '',
      end: packEnding(ending),
      keepMs: lostKeepMs,
      renew: true,
      onlyIfSilentMs: silentMs,
      envelope: pieceEnvelope(this.#envelopes, name, epoch, { at: bytes, to: bytes, text: '' }, ending)
    })
    // The producer came back meanwhile, or another instance was quicker.
    return written === 'written' ? ending : unpackEnding((await this.#store.read(name, bytes))?.end)
  }

  #ended (key: string, stream: TokenStream): void {
    if (this.#open.get(key) !== stream) return
    this.#open.delete(key)
    const { owner } = stream
    const left = owner === undefined ? 0 : (this.#owners.get(owner) ?? 1) - 1
    if (owner !== undefined && left > 0) this.#owners.set(owner, left)
    else if (owner !== undefined) this.#owners.delete(owner)
    if (this.#open.size > 0) return
    clearInterval(this.#ticker)
    this.#ticker = undefined
  }
}

function keyOf ({ group, id }: StreamName): string {
  return `${group}\0${id}`
}
