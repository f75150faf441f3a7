import { Client } from './client.ts'
import type { Address, ConnectOptions } from './types.ts'

export type { Client } from './client.ts'
export { ClientError, type ClientErrorCode } from './errors.ts'
export type * from './types.ts'

/**
 * Connects to a route, and stays connected until `close()`. Attach handlers at once: nothing is received before the code that called this
 * is done.
 * @throws {TypeError} for a URL that is none, for none at all, and where there is no WebSocket
 */
export function connect (url: Address, options: ConnectOptions = {}): Client {
  return new Client(url, options)
}
