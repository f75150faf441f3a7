import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import { Batch } from './batch.ts'
import { drained } from './drained.ts'
import { encodeWsFrame, type Encoding } from './ws-frame.ts'
import { RouteTraffic } from '../../metrics/traffic.ts'
import type { FlushScheduler, Flushable, SlowWriter } from './flush-scheduler.ts'
import type { OutboundMessage } from './message.ts'
import type { Traffic } from '../pulse.ts'
import { boundPongs } from './pongs.ts'
import { openWire, type BeforeClose } from './ws-internals.ts'

/** A batch is written when it has more bytes than this, to limit how much is copied that connections do not share. */
const maxBatchBytes = 65_536
/** The portions in which a client catches up (bytes). More waits only where a single message is larger. */
const maxPortionBytes = 393_216
/** What a conflation key costs beside its frame (bytes). */
const keyBytes = 100

const unknownTraffic: Traffic = {}
/** For connections without a route. */
const uncounted = new RouteTraffic('')

/** `WebSocket.OPEN`. */
const open = 1

/** What the writer tells its connection. */
interface WriterOwner {
  /** The client is further behind than allowed. `atOnce`: the memory is needed now, so drop what waits. */
  tooSlow (bufferedBytes: number, atOnce: boolean): void
  /** ws writes the close frame: this side's own, or the answer to the client's. */
  leaving (said: { readonly code: number, readonly reason: string }): void
}

// Shared by all sends: ws copies from them.
const textMessage = { binary: false }
const binaryMessage = { binary: true }

/** What goes out to one socket: gathered, and written once per turn of the event loop, in the order it came. */
export class SocketWriter implements BeforeClose, Flushable, SlowWriter {
  /** The client may be given messages: at once, or after the hello of the framed protocol. */
  ready: boolean
  readonly #connection: WriterOwner
  readonly #socket: WebSocket
  readonly #scheduler: FlushScheduler
  /** Counts what all connections of the route send and receive. */
  readonly route: RouteTraffic
  /** How messages are written for clients of this kind. */
  encoding: Encoding
  /** `undefined` where the release of ws is unknown: then ws writes each message by itself. */
  readonly #stream: Duplex | undefined
  #ended = false
  #batch: Batch | undefined
  /** Whether the flush scheduler has this writer in its queue. */
  #queued = false
  /** More waited than `slowBufferedBytes`, and not all of that is written yet. */
  #slow = false
  /** The latest frame for each conflation key, while the client is slow. */
  #latest: Map<string, Buffer> | undefined
  #latestBytes = 0
  /** Settles when the stream has drained; set while somebody waits for that. */
  #room: Promise<void> | undefined

  constructor (connection: WriterOwner, socket: WebSocket, framed: boolean, scheduler: FlushScheduler, route = uncounted) {
    this.#connection = connection
    this.#socket = socket
    this.#scheduler = scheduler
    this.route = route
    this.ready = !framed
    const wire = openWire(socket, this)
    boundPongs(socket)
    this.#stream = wire?.stream
    this.encoding = scheduler.encoding(framed, wire?.deflate)
    if (wire === undefined) scheduler.warnUnsupportedWs()
  }

  /** The client speaks the framed protocol and said hello; `json`: it takes events as JSON values. */
  greeted (json: boolean): void {
    if (json) this.encoding = this.#scheduler.encoding(true, this.encoding.deflate, true)
    this.ready = true
  }

  /** Whether more bytes wait than `slowBufferedBytes`. */
  get slow (): boolean {
    return this.#slow && this.bufferedBytes > this.#scheduler.slowBytes
  }

  /** The byte counters of the network socket; without values where the release of ws is unknown. */
  get traffic (): Traffic { return this.#stream ?? unknownTraffic }

  get bufferedBytes (): number {
    return this.#socket.bufferedAmount + (this.#batch?.bytes ?? 0) + this.#latestBytes
  }

  /** Whether the client has to read before it is sent more of what it missed. */
  get full (): boolean { return this.bufferedBytes > this.#portionBytes }

  get #portionBytes (): number { return Math.min(maxPortionBytes, 2 * this.#scheduler.maxBacklogBytes) }

  /** Whether the client has to read before it may send more. */
  get behind (): boolean { return this.bufferedBytes > this.#scheduler.maxBacklogBytes }

  /** Whether the client has taken most of what waited for it. */
  get #hasRoom (): boolean { return this.bufferedBytes <= Math.min(this.#scheduler.slowBytes, this.#portionBytes / 2) }

  /** Whether messages may still be written. Without access to the close frame only ws knows. */
  get #open (): boolean {
    return !this.#ended && (this.#stream === undefined ? this.#socket.readyState === open : this.#stream.writable)
  }

  /** Queues a message that many connections are given now. Returns whether this one takes it. */
  enqueueShared (outgoing: OutboundMessage): boolean {
    if (!this.ready || this.#ended) return false
    if (this.#slow || this.#stream === undefined) return this.#enqueueForSlow(outgoing)
    this.#push(outgoing.batchAfter(this.#batch, this.encoding))
    return true
  }

  /** Queues a message that other connections were given before, or will be later. */
  enqueueOne (outgoing: OutboundMessage): boolean {
    if (!this.ready || !this.#admits()) return false
    this.#give(outgoing)
    return true
  }

  /** Counts a message that may be left out, and that the client did not get. */
  missed (): void {
    this.#scheduler.metrics.framesDropped++
  }

  /** Resolves when the client took most of what waits, or is gone; `undefined` when there is room now. */
  room (): Promise<void> | undefined {
    if (this.#ended || this.#hasRoom) return undefined
    this.flush()
    if (this.#ended || this.#hasRoom) return undefined
    return (this.#room ??= drained(this.#stream, () => !this.#open || this.#hasRoom).finally(() => { this.#room = undefined }))
  }

  /** Queues a message for this connection alone. */
  write (payload: Uint8Array | string, binary: boolean): boolean {
    if (!this.#admits()) return false
    if (this.#stream === undefined) this.#send(payload, binary)
    else this.#push(new Batch(this.#batch, encodeWsFrame(payload, binary, this.encoding.deflate)))
    return true
  }

  /** Called by the scheduler once for each time that the writer was added. */
  flushScheduled (): void {
    this.#queued = false
    this.flush()
  }

  beforeClose (code: number, reason: string): void {
    this.finish()
    this.#connection.leaving({ code, reason })
  }

  /** Writes what waits, and nothing after it. */
  finish (): void {
    if (this.#ended) return
    this.#pushLatest()
    this.flush()
    this.ended()
  }

  /** Called when nothing more is to be written: drops what waits. */
  ended (): void {
    this.#ended = true
    this.#batch = undefined
    this.#latest = undefined
    this.#latestBytes = 0
    this.#scheduler.forgetBacklog(this)
  }

  /** Others need the memory: the connection ends, with all that waits for it. */
  giveUp (): void {
    const { bufferedBytes } = this
    this.ended()
    this.#connection.tooSlow(bufferedBytes, true)
  }

  #give (outgoing: OutboundMessage): void {
    if (this.#stream !== undefined) return this.#push(new Batch(this.#batch, outgoing.frame(this.encoding)))
    const { payload, binary } = outgoing.message(this.encoding)
    this.#send(payload, binary)
  }

  /** Lets ws write a message by itself. */
  #send (payload: Uint8Array | string, binary: boolean): void {
    this.#socket.send(payload, binary ? binaryMessage : textMessage)
    this.route.written(1, typeof payload === 'string' ? Buffer.byteLength(payload) : payload.length)
  }

  #push (batch: Batch): void {
    this.#batch = batch
    if (batch.bytes >= maxBatchBytes) return this.flush()
    if (this.#queued) return
    this.#queued = true
    this.#scheduler.add(this)
  }

  /** Writes what waits, ahead of its turn. */
  flush (): void {
    const batch = this.#batch
    if (batch === undefined || this.#stream === undefined) return
    // After the client ended its side, ws ended this one: a write now would destroy the stream, and what is on its way.
    if (!this.#stream.writable) return this.ended()
    this.#batch = undefined
    this.#scheduler.held.write(this.#stream, batch.buffer, this.#slow)
    this.route.written(batch.messages, batch.bytes)
    if (this.#slow) return this.#scheduler.noteBacklog(this, this.bufferedBytes)
    // A client is not slow yet below the high-water mark of its stream, where no 'drain' would say that it has caught up.
    if (this.#stream.writableLength <= this.#scheduler.slowBytes || !this.#stream.writableNeedDrain) return
    this.#slow = true
    this.#scheduler.noteBacklog(this, this.bufferedBytes)
    this.#stream.once('drain', () => this.#recovered())
  }

  /** As `enqueueShared`, for a client that may be slow: drops or conflates messages that allow it. */
  #enqueueForSlow (outgoing: OutboundMessage): boolean {
    if (this.#slow && this.#stream?.writableLength === 0) this.#recovered()
    const { conflationKey, volatile } = outgoing
    const behind = this.bufferedBytes > this.#scheduler.slowBytes
    // A message that waits with this key is older, and must not follow this one.
    if (conflationKey !== '' && ((behind && this.#stream?.writableNeedDrain === true) || this.#latest?.has(conflationKey) === true)) {
      if (!this.#admits()) return false
      this.#keep(conflationKey, outgoing.frame(this.encoding))
      return true
    }
    if (behind && volatile) {
      this.#scheduler.metrics.framesDropped++
      return false
    }
    if (!this.#admits()) return false
    this.#give(outgoing)
    return true
  }

  /**
   * Whether the connection may have another message. Checked before the message is added: one message larger than the limit says nothing
   * about the client, nor do bytes that only wait for their turn.
   */
  #admits (): boolean {
    if (!this.#open) return false
    const { maxBufferedBytes } = this.#scheduler.limits
    if (this.bufferedBytes <= maxBufferedBytes) return true
    this.flush()
    const { bufferedBytes } = this
    if (bufferedBytes > maxBufferedBytes) this.#connection.tooSlow(bufferedBytes, false)
    return bufferedBytes <= maxBufferedBytes
  }

  #keep (key: string, frame: Buffer): void {
    this.#latest ??= new Map()
    const older = this.#latest.get(key)
    this.#latestBytes += frame.length + (older === undefined ? keyBytes : -older.length)
    if (older !== undefined) this.#scheduler.metrics.framesConflated++
    this.#latest.set(key, frame)
  }

  #recovered (): void {
    if (!this.#slow) return
    this.#slow = false
    this.#scheduler.forgetBacklog(this)
    this.#pushLatest()
  }

  #pushLatest (): void {
    const latest = this.#latest
    this.#latest = undefined
    this.#latestBytes = 0
    for (const frame of latest?.values() ?? []) this.#push(new Batch(this.#batch, frame))
  }
}
