import { WebsocketGroupsError } from '../../../errors.ts'

/** Replies that say "not now" rather than "no": the same call may work on the next master, or in a moment. */
const passingErrors = /^(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY)/

/** Whether the same call may work in a moment. */
export function isPassing (error: Error): boolean {
  return passingErrors.test(error.message)
}

/** Whether a call by the hash of a script may work by its text: Redis does not know the hash, or EVALSHA is forbidden or renamed. */
export function isUnknownScript ({ message }: Error): boolean {
  return message.startsWith('NOSCRIPT') || /^NOPERM.*'evalsha'|^ERR unknown command '?`?evalsha/i.test(message)
}

/** Whether the user may not run a command, or the server has none of that name. */
export function isForbidden (error: unknown): boolean {
  return error instanceof Error && /NOPERM|unknown command/i.test(error.message)
}

/** Whether a key holds something that this package did not write: another program wrote the key. */
export function isWrongType (error: unknown): boolean {
  return error instanceof Error && error.message.includes('WRONGTYPE')
}

/** Whether Redis answered, with an error. */
export function isReply (error: Error): boolean {
  return error.name === 'ReplyError'
}

/** Turns the failure of a command into WSG_BACKPLANE_UNAVAILABLE (not carried out) or WSG_TIMEOUT (unknown outcome). */
export function toBackplaneError (error: Error): WebsocketGroupsError {
  if (isReply(error)) {
    const text = isPassing(error) ? error.message : `Redis refused the command: ${error.message}`
    return new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', text, { cause: error })
  }
  // ioredis says this before it writes anything; all its other failures may come after the command left.
  const unsent = error.message.startsWith("Stream isn't writeable")
  return new WebsocketGroupsError(unsent ? 'WSG_BACKPLANE_UNAVAILABLE' : 'WSG_TIMEOUT', error.message, { cause: error })
}

/** What was wrong, for operators: without the text that tells a caller about the outcome of its call. */
export function reasonOf (error: Error | undefined): string {
  return (error instanceof WebsocketGroupsError ? error.detail : error?.message) ?? 'not connected'
}
