import { Client } from './client.ts'
import type { Address, ConnectOptions } from './types.ts'

export type { Client } from './client.ts'
export { ClientError, type ClientErrorCode } from './errors.ts'
export type * from './types.ts'

/**
 * Connects to a route, and stays connected until `close()`. Attach handlers at once: the client receives nothing before the code that
 * called this is done.
 * @throws {TypeError} for an invalid URL or an empty list, and where there is no WebSocket
 */
export function connect (url: Address, options: ConnectOptions = {}): Client {
  return new Client(url, options)
}
