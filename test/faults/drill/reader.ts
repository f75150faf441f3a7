import type { Test } from 'tap'
import { WebSocket } from 'ws'
import {
  connect as connectNow, type Client, type ClientError, type ConnectOptions, type Gap, type Joined
} from '../../../lib/client/index.ts'
import { Ledger } from './ledger.ts'
import { Line } from './line.ts'

/** One client of the package's own library on a line of its own, with an account of what it got. Messages are numbers from 1, per group. */
export class Reader {
  readonly line: Line
  readonly client: Client
  readonly ledgers = new Map<string, Ledger>()
  readonly gaps: Gap[] = []
  readonly notRecovered: Joined[] = []
  readonly errors: ClientError[] = []
  /** How often it came back. */
  returns = 0
  /** The groups it was told to be in since it last connected. */
  readonly joined = new Set<string>()

  /** `connect`: of the client of another version. */
  constructor (t: Test, ports: readonly number[], group: string, options: ConnectOptions = {}, connect: typeof connectNow = connectNow) {
    this.line = new Line(ports)
    const agent = this.line
    class LineWebSocket extends WebSocket {
      constructor (url: string, protocols: string[]) {
        super(url, protocols, { agent })
      }
    }
    this.client = connect(`ws://localhost/ws/${group}`, { WebSocket: LineWebSocket, ...options })
    this.client.on('message', ({ group = '', data }) => this.ledger(group).record(Number(data)))
    this.client.on('gap', gap => this.gaps.push(gap))
    this.client.on('error', error => this.errors.push(error))
    this.client.on('joined', joined => {
      this.joined.add(joined.group)
      if (joined.recovered === false) this.notRecovered.push(joined)
    })
    this.client.on('state', ({ state, previous }) => {
      if (previous === 'open') this.joined.clear()
      if (state === 'open') this.returns++
    })
    t.teardown(() => this.client.close())
  }

  ledger (group: string): Ledger {
    let ledger = this.ledgers.get(group)
    if (ledger === undefined) this.ledgers.set(group, ledger = new Ledger())
    return ledger
  }

  isIn (groups: readonly string[]): boolean {
    return this.client.state === 'open' && groups.every(group => this.joined.has(group))
  }
}

/** The first thing that is wrong with what the readers got; `undefined` when each got each message of `sent` once and in order. */
export function fault (
  readers: readonly Reader[], sent: ReadonlyMap<string, number>, groupsOf: (reader: Reader) => readonly string[]
): object | undefined {
  for (const reader of readers) {
    const { gaps, notRecovered } = reader
    if (gaps.length > 0 || notRecovered.length > 0) return { reader: readers.indexOf(reader), gaps, notRecovered }
    for (const group of groupsOf(reader)) {
      const { doubled, outOfOrder } = reader.ledger(group)
      const missing = reader.ledger(group).missing(sent.get(group) ?? 0)
      if (doubled + outOfOrder + missing.length > 0) return { reader: readers.indexOf(reader), group, doubled, outOfOrder, missing }
    }
  }
  return undefined
}
