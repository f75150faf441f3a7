/** `open`: the text grows. `stopped`: somebody stopped the stream before its producer was done. */
export type StreamState = 'open' | 'done' | 'failed' | 'stopped'

export interface StreamOptions {
  /** Whom the stream is for: this user may stop it. A user id, or a connection, which stands for its user if it has one. */
  readonly owner?: string | { readonly userId: string | undefined } | undefined
  /** Told to readers with the beginning of the text: JSON of at most 4 KiB. */
  readonly meta?: unknown
  /** How long pieces are gathered before they are sent, from 10 to 1,000 ms. The first piece is sent at once. @default 50 */
  readonly flushMs?: number | undefined
  /** How many bytes the whole text may have, up to 1,048,576. A longer one fails with WSG_STREAM_LIMIT. @default 262_144 */
  readonly maxBytes?: number | undefined
  /** How long nothing may be appended before the stream fails with WSG_TIMEOUT (milliseconds). @default 120_000 */
  readonly idleMs?: number | undefined
  /** How long the text can be read after the end, from 1,000 to 3,600,000 ms. @default 300_000 */
  readonly keepMs?: number | undefined
}

/** A text that grows piece by piece, for the members of one group: see docs/streams.md. */
export interface Stream extends AsyncDisposable {
  readonly group: string
  readonly id: string
  readonly state: StreamState
  /**
   * Aborts when the stream ends before `done` or `fail` is called. `reason` is a `WebsocketGroupsError`: WSG_STREAM_STOPPED,
   * WSG_STREAM_LIMIT (too long, or too many of the group), WSG_STREAM_TAKEN, WSG_STREAM_LOST, WSG_TIMEOUT (idle),
   * WSG_BACKPLANE_UNAVAILABLE, WSG_CLOSED.
   */
  readonly signal: AbortSignal
  /** Adds to the text. Returns `false`, and adds nothing, once the stream has ended. @throws {WebsocketGroupsError} WSG_DATA_INVALID */
  append (text: string): boolean
  /**
   * Ends the stream well. Resolves when the end is stored; on a stream that has ended, at once and without effect. `result` is told to
   * readers: JSON of at most 4 KiB.
   * @throws {WebsocketGroupsError} WSG_DATA_INVALID, WSG_BACKPLANE_UNAVAILABLE (the end could not be stored within a minute)
   */
  done (result?: unknown): Promise<void>
  /**
   * Appends what the source yields, until it ends (`done`), throws (`fail`), or the stream has ended, which also ends a generator. Resolves
   * with the state when the end is stored, or cannot be; never rejects. Give `signal` to whatever the source waits for.
   */
  pipe (source: AsyncIterable<string>): Promise<StreamState>
  /**
   * Ends the stream as failed. Readers get the code and text of an error that is the client's fault; of any other error they get a general
   * one. Resolves and rejects as `done`.
   */
  fail (error: unknown): Promise<void>
  /** What `await using` calls: a stream that is still open then has failed. */
  [Symbol.asyncDispose] (): Promise<void>
}

/** A stream as it is now. */
export interface StreamReading {
  readonly id: string
  readonly text: string
  readonly state: StreamState
  readonly owner?: string | undefined
  readonly meta?: unknown
  /** What `done` was given. */
  readonly result?: unknown
  /** Why the stream failed. */
  readonly error?: { readonly code: string, readonly message: string } | undefined
}
