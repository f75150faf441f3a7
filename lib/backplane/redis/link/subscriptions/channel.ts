import type { Deferred } from '../../../../deadline.ts'

/** How a channel stands on the present connection, and how it should. */
export interface Channel {
  wanted: boolean
  /** The last command sent for it on the present connection was SUBSCRIBE. */
  sent: boolean
  acked: boolean
  /** The subscription worked, or was promised, and brings no messages now. */
  interrupted: boolean
  /** Settles when Redis answers; set only while callers wait. */
  answer: Deferred<void> | undefined
}

export function newChannel (): Channel {
  return { wanted: true, sent: false, acked: false, interrupted: false, answer: undefined }
}

/** Takes the answer that callers wait for, to settle it: later callers wait for the next one. */
export function takeAnswer (channel: Channel): Deferred<void> | undefined {
  const { answer } = channel
  channel.answer = undefined
  return answer
}
