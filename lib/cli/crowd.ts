import { setTimeout as sleep } from 'node:timers/promises'
import type { BenchSettings } from './arguments.ts'
import { addressOf, type BenchClient, type ClientHandlers } from './client.ts'
import { FramedClient } from './framed-client.ts'
import { RawClient } from './raw-client.ts'
import { Deliveries, Reasons, Receptions, SentMessages, Times } from './tally.ts'

/** One client and what it has received. */
interface Member {
  readonly n: number
  readonly room: string
  readonly client: BenchClient
  readonly receptions: Receptions
  /** Whether the client received a message of this run. */
  heard: boolean
}

/** All clients of the load test, by room, and how they fare. */
export class Crowd {
  readonly connectTimes = new Times()
  readonly joinTimes = new Times()
  readonly refused = new Reasons()
  readonly lost = new Reasons()
  readonly failed = new Reasons()
  readonly sent = new SentMessages()
  readonly deliveries = new Deliveries()
  readonly #settings: BenchSettings
  /** What every message of this run begins with; a number follows. */
  readonly #mark: string
  readonly #rooms = new Map<string, Member[]>()
  readonly #clients: BenchClient[] = []

  constructor (settings: BenchSettings, run: string) {
    this.#settings = settings
    this.#mark = `wsg-bench ${run} `
    for (const room of settings.rooms) this.#rooms.set(room, [])
  }

  get connected (): number {
    return this.members().length
  }

  /** The members of one room, or of all. */
  members (room?: string): readonly Member[] {
    return room === undefined ? [...this.#rooms.values()].flat() : this.#rooms.get(room) ?? []
  }

  /**
   * Connects all clients at the pace that is asked for. Resolves when each is in or refused, or when `signal` aborts. `connected` is called
   * now and again.
   */
  async connect (connected: () => void, signal: AbortSignal): Promise<void> {
    const { clients, connectRate, rooms } = this.#settings
    const startedAt = performance.now()
    const settled: Array<Promise<void>> = []
    while (settled.length < clients && !signal.aborted) {
      const due = Math.min(clients, 1 + Math.floor((performance.now() - startedAt) / 1_000 * connectRate))
      while (settled.length < due) {
        const n = settled.length
        settled.push(this.#add(n, rooms[n % rooms.length] ?? ''))
      }
      connected()
      await sleep(20)
    }
    const all = Promise.all(settled).then(() => true)
    while (!signal.aborted && !await Promise.race([all, sleep(500, false)])) connected()
  }

  /** Why clients did not get in, were cut off, or failed, in words; empty when all is well. */
  complaints (): string {
    return [this.refused, this.lost, this.failed].flatMap(reasons => reasons.list())
      .map(({ reason, count }) => `${count} x ${reason}`).join('; ')
  }

  /** Lets a member say something: the message of this number, or one that is not measured. */
  say (member: Member, n: number | undefined): void {
    const { bytes, message } = this.#settings
    const text = `${this.#mark}${n ?? 'x'} `.padEnd(bytes, '.')
    member.client.send(message.replaceAll('{message}', text))
  }

  close (): void {
    for (const client of this.#clients) client.close()
  }

  #add (n: number, room: string): Promise<void> {
    return new Promise(resolve => {
      const { protocol, timeoutMs } = this.#settings
      const receptions = new Receptions(this.sent, this.deliveries)
      const handlers: ClientHandlers = {
        ready: (connectMs, joinMs) => {
          this.connectTimes.record(connectMs)
          if (joinMs !== undefined) this.joinTimes.record(joinMs)
          this.#rooms.get(room)?.push(member)
          resolve()
        },
        refused: reason => {
          this.refused.add(reason)
          resolve()
        },
        received: text => this.#received(member, text),
        lost: reason => {
          this.lost.add(reason)
          // A framed client comes back, and gets what it missed. A raw one does not: no further messages are due to it.
          if (protocol === 'raw') this.#leave(member)
        },
        failed: reason => this.failed.add(reason)
      }
      const Client = protocol === 'raw' ? RawClient : FramedClient
      const client = new Client(addressOf(this.#settings, room, n), timeoutMs, handlers)
      const member: Member = { n, room, client, receptions, heard: false }
      this.#clients.push(client)
    })
  }

  #received (member: Member, text: string): void {
    const at = text.indexOf(this.#mark)
    if (at === -1) return
    member.heard = true
    const n = Number.parseInt(text.slice(at + this.#mark.length, at + this.#mark.length + 12), 10)
    if (!Number.isNaN(n)) member.receptions.receive(n, member.n)
  }

  #leave (member: Member): void {
    const members = this.#rooms.get(member.room) ?? []
    const at = members.indexOf(member)
    if (at !== -1) members.splice(at, 1)
  }
}
