import type { Envelope, StoredStream, StreamEnd, StreamName } from '../backplane/backplane.ts'
import type { EnvelopeFactory } from '../delivery/envelopes.ts'
import type { StreamReading } from '../types.ts'

/* Encodes pieces and endings of streams: see docs/protocol.md. */

export const pieceType = 'wsg.stream'

/** A part of the text, from byte `at` to byte `to`. */
export interface Piece {
  readonly at: number
  readonly to: number
  readonly text: string
}

/** How a stream ended. */
export interface Ending {
  readonly state: StreamEnd
  readonly result?: unknown
  readonly error?: StreamReading['error']
}

/** The head of a stream: who makes it, and what readers get to know. */
export interface Head {
  /** The id of the instance, or publisher, that makes the stream. */
  readonly by: string
  readonly owner?: string | undefined
  readonly meta?: unknown
}

/**
 * Makes the message that brings a piece to the members of the group. `meta` goes with the beginning of the text. A slow member gets the
 * latest piece alone, and reads from the store what is before it.
 */
export function pieceEnvelope (
  envelopes: Pick<EnvelopeFactory, 'message'>, { group, id }: StreamName, epoch: string, { at, to, text }: Piece, ending?: Ending,
  meta?: unknown
): Envelope {
  const more = { ...(at === 0 && meta !== undefined ? { meta } : {}), ...(ending === undefined ? {} : fieldsOf(ending)) }
  const data = JSON.stringify({ type: pieceType, data: { id, epoch, at, to, text, ...more } })
  return envelopes.message([{ kind: 'group', name: group }], data, { conflationKey: `${pieceType}:${id}` })
}

export function fieldsOf ({ state, result, error }: Ending): object {
  return { end: state, ...(result === undefined ? {} : { result }), ...(error === undefined ? {} : { error }) }
}

/** The ending as it is stored. */
export function packEnding ({ state, ...rest }: Ending): NonNullable<StoredStream['end']> {
  return { state, json: JSON.stringify(rest) }
}

export function unpackEnding (end: StoredStream['end']): Ending | undefined {
  return end === undefined ? undefined : { state: end.state, ...JSON.parse(end.json) as object }
}

export function headOf ({ head }: StoredStream): Head {
  return JSON.parse(head) as Head
}
