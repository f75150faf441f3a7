import { copyToKeep } from '../../kept-bytes.ts'
import { maxStreamsPerGroup, silentMs, type StoredStream, type StreamName, type StreamWrite, type StreamWritten } from '../streams.ts'

/** How many pieces of a text are kept as they came; more are joined. */
const maxParts = 256

interface Stream {
  readonly epoch: string
  readonly head: string
  /** The text as it came; joined when somebody reads, and when there are too many. */
  parts: Buffer[]
  bytes: number
  end: StreamWrite['end']
  beatAt: number
  keptUntil: number
}

/** The growing texts of the instances of one process. */
export class MemoryStreams {
  /** Streams by group, then by id. */
  readonly #groups = new Map<string, Map<string, Stream>>()
  readonly #now: () => number

  constructor (now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** As `StreamStore.write`. Calls `publish` if something was written. */
  write (write: StreamWrite, publish: () => void): StreamWritten {
    const { group, id, epoch, at, text, end, keepMs, onlyIfSilentMs } = write
    const known = this.#of(group).get(id)
    let stream = known
    if (known?.epoch !== epoch) {
      if (write.head === undefined) return known === undefined ? 'lost' : 'replaced'
      if (known !== undefined && this.#isSilent(known, onlyIfSilentMs) === false) return 'taken'
      this.#sweep()
      const streams = this.#of(group)
      if (known === undefined && streams.size >= maxStreamsPerGroup) return 'full'
      stream = { epoch, head: write.head, parts: [], bytes: 0, end: undefined, beatAt: this.#now(), keptUntil: this.#now() + keepMs }
      streams.set(id, stream)
      this.#groups.set(group, streams)
    }
    if (stream === undefined) return 'lost'
    if (stream.end !== undefined) return stream.end.state === end?.state ? 'written' : 'ended'
    if (onlyIfSilentMs !== undefined && this.#isSilent(stream, onlyIfSilentMs) !== true) return 'lives'
    if (stream.bytes < at) return 'lost'
    const rest = Buffer.from(text).subarray(stream.bytes - at)
    if (rest.length > 0) stream.parts.push(copyToKeep(rest))
    if (stream.parts.length > maxParts) stream.parts = [Buffer.concat(stream.parts)]
    stream.bytes += rest.length
    if (write.renew) [stream.beatAt, stream.keptUntil] = [this.#now(), this.#now() + keepMs]
    stream.end = end
    publish()
    return 'written'
  }

  /** As `StreamStore.read`. */
  read ({ group, id }: StreamName, from: number): StoredStream | undefined {
    const stream = this.#of(group).get(id)
    if (stream === undefined) return undefined
    const text = Buffer.concat(stream.parts)
    stream.parts = [text]
    const { epoch, head, end, bytes } = stream
    return { epoch, head, end, bytes, text: text.subarray(from), silent: this.#isSilent(stream) === true }
  }

  /** As `StreamStore.list`. */
  list (group: string): readonly string[] {
    return [...this.#of(group).keys()]
  }

  /** Forgets expired streams, also in groups that nobody asks for any more. */
  #sweep (): void {
    for (const group of [...this.#groups.keys()]) this.#of(group)
  }

  /** `undefined` when the stream has ended. */
  #isSilent ({ end, beatAt }: Stream, afterMs = silentMs): boolean | undefined {
    return end === undefined ? this.#now() - beatAt > afterMs : undefined
  }

  /** The streams of a group that have not expired; the group is in the table only while it has one. */
  #of (group: string): Map<string, Stream> {
    const streams = this.#groups.get(group) ?? new Map<string, Stream>()
    for (const [id, { keptUntil }] of streams) if (keptUntil <= this.#now()) streams.delete(id)
    if (streams.size === 0) this.#groups.delete(group)
    return streams
  }
}
