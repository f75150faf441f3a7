import { maxPageBytes, type LoggedEnvelope } from '../backplane.ts'

/**
 * The messages of one page: from index `start` on, at most `limit` of them and `maxPageBytes` of data, but at least one if there is one.
 */
export function pageOf (messages: readonly LoggedEnvelope[], start: number, limit: number): LoggedEnvelope[] {
  const page: LoggedEnvelope[] = []
  let bytes = 0
  for (let index = start; index < messages.length && page.length < limit; index++) {
    const message = messages[index]
    if (message === undefined) break
    bytes += message.payload.length
    if (bytes > maxPageBytes && page.length > 0) break
    page.push(message)
  }
  return page
}
