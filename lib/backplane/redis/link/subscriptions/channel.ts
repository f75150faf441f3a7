import type { Deferred } from '../../../../deadline.ts'

/** How a channel stands on the present connection, and how it should. */
export interface Channel {
  wanted: boolean
  /** The last command sent for it on the present connection was SUBSCRIBE. */
  sent: boolean
  acked: boolean
  /** The subscription worked, or was promised, and brings no messages now. */
  interrupted: boolean
  /** What callers wait for, if there are any: that Redis acknowledges the channel. */
  answer: Deferred<void> | undefined
}

export function newChannel (): Channel {
  return { wanted: true, sent: false, acked: false, interrupted: false, answer: undefined }
}

/** Whoever waits for the channel is about to be answered; those who come later wait for the next answer. */
export function takeAnswer (channel: Channel): Deferred<void> | undefined {
  const { answer } = channel
  channel.answer = undefined
  return answer
}
