// Clients of a system, as a process: load.ts <system>
import { setTimeout as sleep } from 'node:timers/promises'
import { Ledger } from '../../test/faults/drill/ledger.ts'
import { atRandom, LeastConnections, Line } from '../../test/faults/drill/line.ts'
import { expose } from './child.ts'
import { Spread } from './spread.ts'
import { loadForDrill, type Client, type DrillName } from '../systems/system.ts'
import { usage } from './usage.ts'

interface Reader {
  readonly group: string
  readonly line: Line
  readonly ledger: Ledger
  readonly client: Client
  open: boolean
  signals: number
}

export interface OpenOptions {
  readonly clients: number
  readonly groups: readonly string[]
  readonly ports: readonly number[]
  readonly backoffMs: number | undefined
  /** How the balancer chooses an instance; each process has one of its own. @default 'random' */
  readonly balancer?: BalancerName | undefined
}

const balancers = { random: atRandom, least: new LeastConnections() }
export type BalancerName = keyof typeof balancers

const system = await loadForDrill((process.argv[2] ?? 'ours') as DrillName)
const readers: Reader[] = []
const timers = new Set<NodeJS.Timeout>()
const ages = new Spread()
const away = new Spread()
let breaks = 0

function open (group: string, { ports, backoffMs, balancer = 'random' }: OpenOptions): void {
  const line = new Line(ports, balancers[balancer])
  const ledger = new Ledger()
  let brokenAt: number | undefined
  const reader: Reader = {
    group,
    line,
    ledger,
    open: false,
    signals: 0,
    client: system.connect({ group, agent: line, backoffMs }, {
      message (text) {
        const [n, sentAt] = text.split(' ', 2)
        ages.add(Date.now() - Number(sentAt))
        ledger.record(Number(n))
      },
      open () {
        reader.open = true
        if (brokenAt !== undefined) away.add(performance.now() - brokenAt)
        brokenAt = undefined
      },
      broken () {
        reader.open = false
        breaks++
        brokenAt ??= performance.now()
      },
      signalled () { reader.signals++ }
    })
  }
  readers.push(reader)
}

const api = {
  usage,
  async open (options: OpenOptions): Promise<void> {
    for (let i = 0; i < options.clients; i++) {
      open(options.groups[i % options.groups.length] ?? '', options)
      if (i % 20 === 19) await sleep(10)
    }
  },
  away: (): number => readers.filter(reader => !reader.open).length,
  breaks: (): number => breaks,
  delivered: (): number => readers.reduce((sum, { ledger }) => sum + ledger.delivered, 0),
  setPorts (ports: readonly number[]): void { for (const { line } of readers) line.ports = ports },
  /** Cuts each client once in every period, evenly spread. */
  cut (everyMs: number, forMs: number): void {
    for (const [i, { line }] of readers.entries()) {
      timers.add(setTimeout(() => {
        line.cut(forMs)
        timers.add(setInterval(() => line.cut(forMs), everyMs))
      }, everyMs * i / readers.length))
    }
  },
  stopCutting (): void { for (const timer of timers) clearTimeout(timer) },
  report (sent: Readonly<Record<string, number>>) {
    const pauses = new Spread()
    const total = { due: 0, delivered: 0, doubled: 0, outOfOrder: 0, signals: 0, lostSilently: 0, breaks }
    for (const { group, ledger, signals } of readers) {
      total.due += sent[group] ?? 0
      total.delivered += ledger.delivered
      total.doubled += ledger.doubled
      total.outOfOrder += ledger.outOfOrder
      total.signals += signals
      if (signals === 0) total.lostSilently += (sent[group] ?? 0) - ledger.delivered
      pauses.add(ledger.longestPauseMs)
    }
    return { ...total, ages: ages.counts, away: away.counts, pauses: pauses.counts }
  },
  close (): void { for (const { client } of readers) client.close() }
}
export type LoadApi = typeof api
expose(api)
