import type { Test } from 'tap'
import { connect as connectSocket, type Socket } from 'node:net'
import { randomBytes } from 'node:crypto'
import type { BroadcastOptions } from '../../plugin.ts'
import type { Instance } from './instance.ts'
import { until } from './until.ts'

/**
 * A WebSocket client of the least kind, to have thousands of: text frames up to 64 KiB, pings answered, nothing else. It understands the
 * instances of instance.ts: their first message says which connection it is.
 */
export class Guest {
  readonly messages: string[] = []
  readonly #socket: Socket
  #id = ''
  #scope = ''
  #closed = false
  #upgraded = false
  #rest = Buffer.alloc(0)

  constructor (port: number, path: string, user?: string) {
    this.#socket = connectSocket(port, '127.0.0.1')
    this.#socket.setNoDelay(true)
    this.#socket.on('error', () => {})
    this.#socket.on('close', () => { this.#closed = true })
    this.#socket.on('data', chunk => this.#read(chunk))
    this.#socket.write([
      `GET ${path} HTTP/1.1`, 'Host: 127.0.0.1', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13',
      `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`, ...(user === undefined ? [] : [`Authorization: Bearer ${user}`]), '', ''
    ].join('\r\n'))
  }

  /** The id of the connection, once it joined. */
  get id (): string { return this.#id }
  /** 'cluster' or 'local', once it joined. */
  get scope (): string { return this.#scope }
  get closed (): boolean { return this.#closed }
  /** The server answered 101; `onConnect` runs, or ran. */
  get upgraded (): boolean { return this.#upgraded }

  /** Says goodbye; the server ends the connection. */
  close (): void {
    if (!this.#closed) this.#socket.write(Buffer.from([0x88, 0x80, 0, 0, 0, 0]))
  }

  /** Vanishes. */
  terminate (): void {
    this.#socket.resetAndDestroy()
  }

  #read (chunk: Buffer): void {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    if (!this.#upgraded) {
      const end = bytes.indexOf('\r\n\r\n')
      if (end !== -1) {
        if (!bytes.toString('latin1', 0, 12).endsWith('101')) return this.terminate()
        this.#upgraded = true
        bytes = bytes.subarray(end + 4)
      }
    }
    while (this.#upgraded && bytes.length >= 2) {
      const short = (bytes[1] ?? 0) & 127
      if (short === 126 && bytes.length < 4) break
      const start = short === 126 ? 4 : 2
      const size = short === 126 ? bytes.readUInt16BE(2) : short
      if (bytes.length < start + size) break
      this.#handle((bytes[0] ?? 0) & 15, bytes.subarray(start, start + size))
      bytes = bytes.subarray(start + size)
    }
    this.#rest = Buffer.from(bytes)
  }

  #handle (opcode: number, payload: Buffer): void {
    if (opcode === 9) this.#socket.write(Buffer.concat([Buffer.from([0x8a, 0x80 | payload.length, 0, 0, 0, 0]), payload]))
    if (opcode === 8) this.#socket.end()
    if (opcode !== 1) return
    const text = payload.toString()
    const [, id, scope] = this.#id === '' ? /^joined (\S+) (\S+)$/.exec(text) ?? [] : []
    if (id === undefined) {
      this.messages.push(text)
    } else {
      this.#id = id
      this.#scope = scope ?? ''
    }
  }
}

interface CrowdOptions {
  readonly user?: (index: number) => string
  readonly timeoutMs?: number
}

/** Opens one connection for each list of rooms ('a' or 'a,b'; '-' for none), and resolves when all have joined. */
export async function crowd (
  t: Test, port: number, rooms: readonly string[], { user, timeoutMs = 20_000 }: CrowdOptions = {}
): Promise<Guest[]> {
  const guests: Guest[] = []
  t.teardown(() => { for (const guest of guests) guest.terminate() })
  for (let start = 0; start < rooms.length; start += 200) {
    const some = rooms.slice(start, start + 200).map(
      (room, index) => new Guest(port, `/ws/${encodeURIComponent(room)}`, user?.(start + index))
    )
    guests.push(...some)
    await until(() => some.every(({ id, closed }) => id !== '' || closed), { timeoutMs, what: 'a crowd to have joined' })
    const refused = some.filter(({ id }) => id === '').length
    if (refused > 0) throw new Error(`${refused} connections were refused`)
  }
  return guests
}

/** `count` names, repeated over `groups` groups. */
export function spread (count: number, groups: number, name = 'room'): string[] {
  return Array.from({ length: count }, (_, index) => `${name}-${index % groups}`)
}

/** Messages that a guest got more than once. */
export function doubled (guests: readonly Guest[]): string[] {
  return guests.flatMap(({ id, messages }) => {
    const seen = new Set<string>()
    return messages.filter(text => seen.size === seen.add(text).size).map(text => `${id}: ${text}`)
  })
}

/** Each instance broadcasts to each group: every member, wherever it is, gets each of these messages once. */
export async function everyoneHears (
  t: Test, instances: readonly Instance[], members: ReadonlyMap<string, readonly Guest[]>, label: string, options: BroadcastOptions = {}
): Promise<void> {
  await Promise.all([...members].map(async ([group, guests]) => {
    const start = `${label}: ${group} from `
    const expected = instances.map(({ id }) => start + id).sort()
    await Promise.all(instances.map(async one => await one.ask('broadcast', group, start + one.id, options)))
    const heard = ({ messages }: Guest): string[] => messages.filter(text => text.startsWith(start)).sort()
    await until(() => guests.every(guest => heard(guest).length >= expected.length)).catch(() => {})
    const wrong = guests.filter(guest => heard(guest).join() !== expected.join())
    if (wrong.length > 0) {
      t.fail(`${label}: ${wrong.length} of ${guests.length} in ${group} heard ${JSON.stringify(heard(wrong[0] as Guest))}`)
    }
  }))
  t.pass(`${label}: everyone in ${members.size} groups was sent something by ${instances.length} instances`)
}

/** Guests by the room that they asked for. */
export function byRoom (rooms: readonly string[], guests: readonly Guest[]): Map<string, Guest[]> {
  const members = new Map<string, Guest[]>()
  for (const [index, guest] of guests.entries()) {
    for (const room of (rooms[index] ?? '').split(',')) members.set(room, [...members.get(room) ?? [], guest])
  }
  return members
}
