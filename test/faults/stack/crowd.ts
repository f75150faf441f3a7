import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { connect, type Client, type ClientError, type WebSocketLike } from '../../../lib/client/index.ts'
import { streamsOf, type Streams } from '../../../lib/client/streams.ts'
import type { ServerFrame } from '../../../lib/protocol/frames.ts'
import type { Random } from '../chaos/random.ts'
import { groups, neighbours, volatile } from './groups.ts'
import { Oracle, Session, type Heard } from './oracle.ts'

const tickMs = 20
/** More than so many unanswered messages of one client wait for their answers first. */
const maxUnderWay = 100
const framedPerGroup = 3
const rawClients = 6

interface FramedClient {
  readonly client: Client
  readonly session: Session
  readonly streams: Streams
  /** The group of its route. */
  readonly own: string
  /** Groups that it joins by itself. */
  readonly others: Set<string>
  /** How many of its messages have no answer yet. */
  underWay: number
  cut (): void
}

interface RawClient { readonly name: string, readonly rooms: readonly string[], socket?: WebSocket, heard?: Heard, id?: string }

/** Clients with the framed protocol, and without it, that send to each other through whatever instances are there. */
export class Crowd {
  readonly oracle = new Oracle()
  readonly framed: FramedClient[] = []
  readonly raw: RawClient[] = []
  readonly #ports: () => readonly number[]
  readonly #random: Random
  #rate = 0
  #due = 0
  #number = 0
  #closed = false
  readonly #timer: NodeJS.Timeout

  constructor (ports: () => readonly number[], random: Random) {
    this.#ports = ports
    this.#random = random
    this.#timer = setInterval(() => this.#tick(), tickMs)
  }

  /** The first client of each group is in that group alone: whatever the group is sent, somebody is told by its place. */
  start (): void {
    for (const own of groups) {
      for (let n = 0; n < framedPerGroup; n++) {
        const others = n === 0 ? [] : this.#random.shuffle(groups.filter(group => group !== own)).slice(0, n)
        this.framed.push(this.#framedClient(`${own}${n}`, own, new Set(others)))
      }
    }
    for (let n = 0; n < rawClients; n++) {
      const rooms = n === 0 ? [volatile] : this.#random.shuffle(groups).slice(0, 1 + n % 3)
      const client: RawClient = { name: `raw${n}`, rooms }
      this.raw.push(client)
      void this.#keepOpen(client)
    }
  }

  /** Messages a second of all together. */
  publish (rate: number): void {
    this.#rate = rate
    this.#due = 0
  }

  /** Nothing that was sent waits for an answer. */
  get idle (): boolean {
    return this.framed.every(({ underWay }) => underWay === 0)
  }

  /** Everybody is connected, and in all of the groups that it wants to be in. */
  get settled (): boolean {
    return this.framed.every(({ client, session, own, others }) =>
      client.state === 'open' && [own, ...others].every(group => session.joined.has(group))) &&
      this.raw.every(({ socket, id }) => socket?.readyState === WebSocket.OPEN && id !== undefined)
  }

  /** What those who are not at the end of their logs say of it. */
  get behind (): string[] {
    return this.framed.flatMap(({ session }) => [...session.joined].filter(group => {
      const [end, at] = [this.oracle.end(group), session.cursors.get(group)]
      return end !== undefined && (at?.epoch !== end.epoch || at.offset !== end.offset)
    }).map(group => `${session.name} in ${group}`))
  }

  /** Those in the group without a log who were told nothing of what was sent to it since then. */
  unreachedSince (at: number): string[] {
    const reached = this.oracle.reachedSince(at)
    return this.people.get(volatile)?.filter(name => !reached.has(name)) ?? []
  }

  /** By client: the streams that it has not read to their ends. */
  get reading (): string[] {
    return this.framed.flatMap(({ session, streams }) => groups.flatMap(group => streams.list(group)
      .filter(({ state }) => state === 'open').map(({ id }) => `${session.name} ${group} ${id}`)))
  }

  /** Ids of the connections in each group. */
  get members (): Map<string, string[]> {
    return new Map(groups.map(group => [group, [
      ...this.framed.filter(({ session }) => session.joined.has(group)).map(({ client }) => client.connectionId ?? ''),
      ...this.raw.filter(({ rooms }) => rooms.includes(group)).map(({ id }) => id ?? '')
    ].sort()]))
  }

  /** The users in each group: every client is one of its own. */
  get people (): Map<string, string[]> {
    return new Map(groups.map(group => [group, [
      ...this.framed.filter(({ session }) => session.joined.has(group)).map(({ session }) => session.name),
      ...this.raw.filter(({ rooms }) => rooms.includes(group)).map(({ name }) => name)
    ].sort()]))
  }

  /** Breaks the connections of a part of the clients, as a network does. */
  cut (part: number): void {
    for (const client of this.framed) if (this.#random.next() < part) client.cut()
    for (const { socket } of this.raw) if (this.#random.next() < part) socket?.terminate()
  }

  /** Somebody leaves a group or joins another one. */
  move (): void {
    const { client, own, others } = this.#random.pick(this.framed.filter(({ others }) => others.size > 0))
    const group = this.#random.pick(groups.filter(group => group !== own))
    // Its outcome may come after a break, or never; what counts is what the server says in the end.
    const quiet = (): void => {}
    if (others.delete(group)) {
      if (others.size === 0) others.add(group)
      else client.leave(group).catch(quiet)
    } else {
      others.add(group)
      client.join(group).catch(quiet)
    }
  }

  /** Marks the connections that are open now, for the oracle. */
  seal (): void {
    for (const { heard } of this.raw) if (heard !== undefined) heard.live = true
  }

  async close (): Promise<void> {
    this.#closed = true
    clearInterval(this.#timer)
    for (const { client } of this.framed) client.close()
    for (const { socket } of this.raw) socket?.close()
    await sleep(200)
    for (const { socket } of this.raw) socket?.terminate()
  }

  #framedClient (name: string, own: string, others: Set<string>): FramedClient {
    const { oracle } = this
    const port = (): number | undefined => this.#port()
    const session = new Session(name)
    let latest: WebSocket | undefined
    /** Sees each frame that the client is given, before the client does; leads each attempt to any instance. */
    class Tapped implements WebSocketLike {
      onopen: WebSocketLike['onopen'] = null
      onmessage: WebSocketLike['onmessage'] = null
      onclose: WebSocketLike['onclose'] = null
      onerror: WebSocketLike['onerror'] = null
      readonly #ws: WebSocket

      constructor (url: string, protocols: string[]) {
        const address = new URL(url)
        address.port = String(port() ?? 1)
        const heard = oracle.connected(name, true)
        const ws = latest = this.#ws = new WebSocket(address, protocols)
        ws.on('open', () => this.onopen?.({} as never))
        ws.on('message', (data: Buffer) => {
          if (latest === ws) oracle.frame(session, heard, JSON.parse(data.toString()) as ServerFrame)
          this.onmessage?.({ data: data.toString() } as never)
        })
        ws.on('error', error => this.onerror?.({ message: error.message, error } as never))
        ws.on('close', (code, reason) => {
          if (latest === ws) session.joined.clear()
          this.onclose?.({ code, reason: reason.toString() } as never)
        })
      }

      get protocol (): string { return this.#ws.protocol }
      get bufferedAmount (): number { return this.#ws.bufferedAmount }
      send (data: string): void { this.#ws.send(data) }
      close (code?: number, reason?: string): void { this.#ws.close(code, reason) }
      terminate (): void {
        if (latest === this.#ws) latest = undefined
        this.#ws.terminate()
      }
    }
    const client = connect(`ws://127.0.0.1:1/room/${own}`, {
      token: name, WebSocket: Tapped, backoff: { minMs: 100, maxMs: 800 }, connectTimeoutMs: 4_000
    })
    const streams = streamsOf(client)
    streams.on('stream', view => oracle.stream(session, view))
    // Whoever comes back to a group is given its streams anew, those that are done as well.
    client.on('left', ({ group }) => {
      for (const name of session.streams.keys()) if (name.startsWith(`${group} `)) session.streams.delete(name)
    })
    client.on('message', ({ data, group }) => {
      const { id, type } = JSON.parse(String(data)) as { readonly id: string, readonly type?: string }
      if (type === undefined) oracle.handled(session, id, group)
    })
    client.on('error', ({ code, message }) => {
      if (!['CONNECT_FAILED', 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT'].includes(code)) {
        oracle.violations.push(`${name} failed: ${code} ${message}`)
      }
    })
    client.on('close', ({ code, error }) => {
      if (!this.#closed) oracle.violations.push(`${name} was closed for good with ${code}: ${String(error)}`)
    })
    for (const group of others) client.join(group).catch(() => {})
    return { client, session, streams, own, others, underWay: 0, cut: () => latest?.terminate() }
  }

  async #keepOpen (client: RawClient): Promise<void> {
    while (!this.#closed) {
      const heard = this.oracle.connected(client.name, false)
      const socket = new WebSocket(`ws://127.0.0.1:${this.#port() ?? 1}/raw/${client.rooms.join()}`, ['bearer', client.name])
      Object.assign(client, { socket, heard })
      socket.on('message', (data: Buffer) => { client.id = this.oracle.raw(heard, client.rooms, data.toString()) ?? client.id })
      socket.on('error', () => {}) // 'close' follows
      await new Promise(resolve => socket.once('close', resolve))
      delete client.id
      await sleep(this.#random.between(50, 500))
    }
  }

  #port (): number | undefined {
    const ports = this.#ports()
    return ports.length === 0 ? undefined : this.#random.pick(ports)
  }

  #tick (): void {
    this.#due += this.#rate * tickMs / 1_000
    for (; this.#due >= 1; this.#due--) {
      if (this.#random.next() < 0.1) this.#sendRaw()
      else this.#sendFramed()
    }
  }

  #targets (): string[] {
    const group = this.#random.pick(groups)
    if (this.#random.next() < 0.6) return [group]
    return this.#random.shuffle(neighbours(group)).slice(0, this.#random.between(2, 3))
  }

  #message (id: string, to: readonly string[]): string {
    return JSON.stringify({ id, to, pad: 'x'.repeat(this.#random.between(1, 200)) })
  }

  #sendFramed (): void {
    const sender = this.#random.pick(this.framed)
    if (sender.underWay >= maxUnderWay) return
    const id = `${sender.session.name}/${++this.#number}`
    const to = this.#targets()
    this.oracle.sent(id, to)
    sender.underWay++
    sender.client.send(this.#message(id, to))
      .then(({ position }) => this.oracle.acked(id, position), ({ code }: ClientError) => this.oracle.failed(id, code))
      .finally(() => { sender.underWay-- })
  }

  /** Nobody learns what became of it. */
  #sendRaw (): void {
    const { socket, name, id: connected } = this.#random.pick(this.raw)
    if (socket?.readyState !== WebSocket.OPEN || connected === undefined) return
    const id = `${name}/${++this.#number}`
    const to = this.#targets()
    this.oracle.sent(id, to)
    socket.send(this.#message(id, to))
  }
}
