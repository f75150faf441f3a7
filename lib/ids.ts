import { randomBytes } from 'node:crypto'

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const connectionId = /^([0-9A-Za-z]{10})\.[0-9a-z]{1,11}$/

/** Draws the id of an instance: ten characters of base 62, one of 8 * 10^17, drawn again at every boot. */
export function drawId (): string {
  let id = ''
  while (id.length < 10) {
    for (const byte of randomBytes(16)) {
      // 248 is the largest multiple of 62 that fits into a byte. Larger bytes would favour the first letters.
      if (byte < 248 && id.length < 10) id += alphabet[byte % 62]
    }
  }
  return id
}

/** The id of an instance's nth connection. It names the instance that holds the socket, so no directory of connections is needed. */
export function connectionIdOf (instanceId: string, n: number): string {
  return `${instanceId}.${n.toString(36)}`
}

/** The instance that holds the connection with this id; `undefined` when the text is not a connection id. */
export function ownerOf (id: string): string | undefined {
  return connectionId.exec(id)?.[1]
}
