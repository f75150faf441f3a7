import type { Test } from 'tap'
import { randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { until } from '../helpers/until.ts'

/** A TCP connection, for what no HTTP client lets a test do. */
export interface RawConnection {
  readonly socket: Socket
  /** All that came. */
  readonly text: string
  /** The server ended its side, or the connection is gone. */
  readonly over: boolean
  write (data: string | Uint8Array): void
  /** Resolves with all that came, once `count` answers did: each begins with a status line. */
  answers (count: number): Promise<string>
}

export async function rawConnection (t: Test, url: string): Promise<RawConnection> {
  const { hostname, port } = new URL(url)
  const socket = connect({ port: Number(port), host: hostname, allowHalfOpen: true })
  let text = ''
  let over = false
  socket.on('data', chunk => { text += chunk.toString('latin1') })
  socket.on('end', () => { over = true })
  socket.on('close', () => { over = true })
  socket.on('error', () => { over = true })
  t.teardown(() => socket.destroy())
  await new Promise(resolve => socket.once('connect', resolve))
  return {
    socket,
    get text () { return text },
    get over () { return over },
    write (data) { socket.write(data) },
    async answers (count) {
      await until(() => (text.match(/HTTP\/1\.1 \d{3}/g)?.length ?? 0) >= count && /\r\n\r\n/.test(text))
      return text
    }
  }
}

/** The head of a request, with the empty line that ends it. */
export function requestHead (line: string, headers: Readonly<Record<string, string>> = {}): string {
  const lines = Object.entries({ Host: 'test', ...headers }).map(([name, value]) => `${name}: ${value}\r\n`)
  return `${line} HTTP/1.1\r\n${lines.join('')}\r\n`
}

export function upgradeHead (path: string, headers: Readonly<Record<string, string>> = {}): string {
  return requestHead(`GET ${path}`, {
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
    ...headers
  })
}

/** A frame as a client sends it. */
export function clientFrame (opcode: number, payload: string | Uint8Array, final = true): Buffer {
  const data = Buffer.from(payload)
  const mask = randomBytes(4)
  const size = data.length < 126 ? Buffer.alloc(0) : Buffer.alloc(data.length < 65_536 ? 2 : 8)
  if (size.length === 2) size.writeUInt16BE(data.length)
  if (size.length === 8) size.writeBigUInt64BE(BigInt(data.length))
  const shown = size.length === 0 ? data.length : size.length === 2 ? 126 : 127
  const masked = data.map((byte, at) => byte ^ (mask[at & 3] ?? 0))
  return Buffer.concat([Buffer.from([(final ? 0x80 : 0) | opcode, 0x80 | shown]), size, mask, masked])
}
