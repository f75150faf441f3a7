import type { Envelope } from '../backplane/backplane.ts'
import { encodeMessage } from '../frames.ts'
import { formatPosition } from '../position.ts'

/** Of envelopes that are replayed: after the crash of an instance thousands of clients are given the same ones. */
const replayed = new WeakMap<Envelope, Buffer>()

/** The `message` frame that framed connections get of an envelope. */
export function messageFrame ({ payload, binary, target, position }: Envelope): Buffer {
  return encodeMessage(payload, binary, target.kind === 'group' ? target.name : undefined, position === undefined ? undefined : formatPosition(position))
}

/** The same, kept for as long as the envelope itself is. */
export function replayFrame (envelope: Envelope): Buffer {
  let frame = replayed.get(envelope)
  if (frame === undefined) replayed.set(envelope, frame = messageFrame(envelope))
  return frame
}
