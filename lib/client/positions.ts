import { maxResume, positionPattern, type HelloFrame } from '../protocol/frames.ts'
import { maxRecent } from './limits.ts'

interface Reader {
  position: string
  /** Proves to the server that this client was in the group before. */
  grant?: string | undefined
  /** The latest positions, oldest first, to recognize what comes again after a break: positions have no order that a client knows. */
  readonly recent: Set<string>
}

/** How far this client got in each group. */
export class Positions {
  readonly #readers = new Map<string, Reader>()

  constructor (positions: Readonly<Record<string, string>>) {
    // The positions may come from a storage that others write to, and the server refuses a client for good that offers anything else.
    for (const [group, position] of Object.entries(positions)) if (positionPattern.test(position)) this.set(group, position)
  }

  get (group: string): string | undefined {
    return this.#readers.get(group)?.position
  }

  has (group: string, position: string): boolean | undefined {
    return this.#readers.get(group)?.recent.has(position)
  }

  set (group: string, position: string, grant?: string): void {
    const reader: Reader = this.#readers.get(group) ?? { position, recent: new Set() }
    this.#readers.set(group, reader)
    reader.position = position
    if (grant) reader.grant = grant
    remember(reader.recent, position, maxRecent)
  }

  delete (group: string): void {
    this.#readers.delete(group)
  }

  all (): Record<string, string> {
    return Object.fromEntries([...this.#readers].map(([group, { position }]) => [group, position]))
  }

  /** Returns what `hello` offers. Groups for which `last` holds come last and may be cut off: their `join` gives the position again. */
  offer (last: (group: string) => boolean): Pick<HelloFrame, 'resume' | 'grants'> {
    const readers = [...this.#readers].sort(([a], [b]) => +last(a) - +last(b)).slice(0, maxResume)
    return {
      resume: Object.fromEntries(readers.map(([group, { position }]) => [group, position])),
      grants: Object.fromEntries(readers.map(([group, { grant }]) => [group, grant]))
    }
  }
}

/** Adds the latest value, and forgets the oldest one when there are too many. */
export function remember (values: Set<string>, value: string, max: number): void {
  values.add(value)
  const [oldest = ''] = values
  if (values.size > max) values.delete(oldest)
}
