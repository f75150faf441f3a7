import type { Envelope } from './messages.ts'

/** How long after its last write a stream counts as lost: its producer is gone, or cannot reach the backplane (milliseconds). */
export const silentMs = 15_000

/** How many streams of one group are kept at the same time, open or ended. */
export const maxStreamsPerGroup = 100

export type StreamEnd = 'done' | 'failed' | 'stopped'

export interface StreamName {
  readonly group: string
  /** Unique in the group. */
  readonly id: string
}

/** Adds to the text of a stream, and tells the members of its group. */
export interface StreamWrite extends StreamName {
  /** Tells streams apart that had this id one after another. */
  readonly epoch: string
  /** The head of a new stream, as JSON. Without it, no stream is made. */
  readonly head?: string | undefined
  /** Where `text` belongs (bytes): what the stream already has of it is not written again. */
  readonly at: number
  readonly text: string
  /** The stream ends with this text. `json` is kept for readers. */
  readonly end?: { readonly state: StreamEnd, readonly json: string } | undefined
  /** How long the stream is kept from now on (milliseconds). */
  readonly keepMs: number
  /** Whether to record that the producer lives, and to keep the stream from now on. */
  readonly renew: boolean
  /** Writes only if the stream is open and had no write for this long (milliseconds). */
  readonly onlyIfSilentMs?: number | undefined
  /** The message to the members of the group, published in the same step. */
  readonly envelope: Envelope
}

/**
 * `written`, or why not: `lost`, the stream is not there, or shorter than `at`; `taken`, another stream with this id is open; `replaced`,
 * another one came after it; `full`, the group has `maxStreamsPerGroup`; `ended`, the stream has another end already; `lives`, it is not
 * silent.
 */
export type StreamWritten = 'written' | 'lost' | 'taken' | 'replaced' | 'full' | 'ended' | 'lives'

/** A stream as it is stored. */
export interface StoredStream {
  readonly epoch: string
  readonly head: string
  readonly end: StreamWrite['end']
  /** The bytes of the text from `from` on. */
  readonly text: Buffer
  /** How many bytes the whole text has. */
  readonly bytes: number
  /** Whether the stream is open and had no write for `silentMs`. */
  readonly silent: boolean
}

/** Stores growing texts, each as one value, not in pieces. */
export interface StreamStore {
  /**
   * A call with unknown outcome may be made again: nothing is written twice, but the envelope may be sent again.
   * @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  write (write: StreamWrite): Promise<StreamWritten>
  /** `undefined` when there is no such stream. @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT */
  read (name: StreamName, from: number): Promise<StoredStream | undefined>
  /** The ids of the group's streams. @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT */
  list (group: string): Promise<readonly string[]>
}
