import type { LocalConnection } from '../connection/connection.ts'
import { OutboundMessage } from '../connection/outbound/message.ts'

/** Calls for one name are at least this far apart. */
const pauseMs = 1_000

/** Calls a function for a name at once, then again after a pause if it was asked for meanwhile; each name by itself. */
export class Spaced {
  readonly #pauses = new Map<string, { again: boolean, readonly timer: NodeJS.Timeout }>()
  readonly #act: (name: string) => void

  constructor (act: (name: string) => void) {
    this.#act = act
  }

  want (name: string): void {
    const pause = this.#pauses.get(name)
    if (pause !== undefined) pause.again = true
    else this.#run(name)
  }

  close (): void {
    for (const { timer } of this.#pauses.values()) clearTimeout(timer)
    this.#pauses.clear()
  }

  #run (name: string): void {
    const timer = setTimeout(() => {
      const again = this.#pauses.get(name)?.again === true
      this.#pauses.delete(name)
      if (again) this.#run(name)
    }, pauseMs).unref()
    this.#pauses.set(name, { again: false, timer })
    this.#act(name)
  }
}

interface Group {
  readonly watchers: Set<LocalConnection>
  /** Connections that were sent no count yet. */
  readonly fresh: Set<LocalConnection>
  /** The count that clients were told last; -1 before the first. */
  told: number
  /** The number of the question that it answers: questions are numbered in the order in which they were asked. */
  askedAt: number
}

/** Tells the clients of routes with `presence: 'count'` how many members their groups have, however many come and go. */
export class PresenceCounts {
  readonly #read: (group: string) => Promise<number>
  readonly #groups = new Map<string, Group>()
  #asked = 0
  readonly #tells = new Spaced(group => { void this.#tell(group) })

  /** `read` resolves with the count of a group in the whole cluster, -1 when nobody can tell; it never rejects. */
  constructor (read: (group: string) => Promise<number>) {
    this.#read = read
  }

  get size (): number {
    return this.#groups.size
  }

  add (group: string, connection: LocalConnection): void {
    let here = this.#groups.get(group)
    if (here === undefined) this.#groups.set(group, here = { watchers: new Set(), fresh: new Set(), told: -1, askedAt: 0 })
    here.watchers.add(connection)
    here.fresh.add(connection)
  }

  remove (group: string, connection: LocalConnection): void {
    const here = this.#groups.get(group)
    here?.fresh.delete(connection)
    if (here?.watchers.delete(connection) === true && here.watchers.size === 0) this.#groups.delete(group)
  }

  /** A member joined or left: sends the count now, or when the pause since the last one is over. */
  changed (group: string): void {
    if (this.#groups.has(group)) this.#tells.want(group)
  }

  /** The groups whose clients are told. */
  groups (): Iterable<string> {
    return this.#groups.keys()
  }

  close (): void {
    this.#groups.clear()
    this.#tells.close()
  }

  async #tell (group: string): Promise<void> {
    const askedAt = ++this.#asked
    const count = await this.#read(group)
    const here = this.#groups.get(group)
    // An answer that takes longer than the pause may come after that to a later question.
    if (here === undefined || count < 0 || askedAt < here.askedAt) return
    here.askedAt = askedAt
    const toTell = count === here.told ? here.fresh : here.watchers
    const outgoing = OutboundMessage.ofFrame({ type: 'count', group, count })
    for (const connection of toTell) connection.outbound.enqueueShared(outgoing)
    here.told = count
    here.fresh.clear()
  }
}
