import type { BenchProtocol } from './arguments.ts'
import type { Usage } from './own-usage.ts'
import type { Spread } from './tally.ts'

type Counted = ReadonlyArray<{ readonly reason: string, readonly count: number }>

/** What `--json` prints. Times are in milliseconds. */
export interface BenchResult {
  readonly version: string
  readonly address: string
  readonly protocol: BenchProtocol
  readonly rooms: number
  readonly clients: number
  readonly bytes: number
  readonly seconds: number
  /** Clients that got in. */
  readonly connected: number
  readonly connectMs: Spread | undefined
  /** Known of framed clients alone: a raw client is not told when it is in its room. */
  readonly joinMs: Spread | undefined
  /** From when a message was due to be sent until another client had it. */
  readonly deliveryMs: Spread | undefined
  /** How many messages the rate asked for, and how many were sent. */
  readonly asked: number
  readonly sent: number
  /** Deliveries that the sent messages should make: one to each client of the room but the sender. */
  readonly due: number
  readonly delivered: number
  readonly doubled: number
  readonly outOfOrder: number
  readonly refused: Counted
  readonly lost: Counted
  readonly failed: Counted
  readonly own: Usage
  /** Why the times of deliveries say more about this program than about the server; empty when they do not. */
  readonly bottleneck: readonly string[]
  /** The same of the times of connecting. */
  readonly connectBottleneck: readonly string[]
  /** Set when the server is on the machine of this program. */
  readonly sameMachine: { readonly cores: number } | undefined
}

/** Whether everybody got in and stayed, and every message arrived once and in order. */
export function isFlawless ({ clients, connected, due, delivered, doubled, outOfOrder, lost, failed }: BenchResult): boolean {
  return connected === clients && delivered === due && doubled + outOfOrder + lost.length + failed.length === 0
}

const count = (number: number): string => number.toLocaleString('en-US')
const plural = (number: number, noun: string): string => `${count(number)} ${noun}${number === 1 ? '' : 's'}`
const percent = (part: number, whole: number): string => whole === 0 ? '-' : `${(Math.floor(part / whole * 1_000) / 10)} %`

export function toTable (result: BenchResult): string {
  const { asked, sent, due, delivered, doubled, outOfOrder, seconds } = result
  const rate = seconds === 0 ? 0 : sent / seconds
  const lines = [
    `${result.address}, ${result.protocol}: ${plural(result.connected, 'client')} in ${plural(result.rooms, 'room')}, ` +
    `${count(Math.round(rate * 10) / 10)} messages/s of ${count(result.bytes)} bytes for ${count(Math.round(seconds * 10) / 10)} s`,
    '',
    row('ms', ['p50', 'p90', 'p99', 'max']),
    row('connect', spread(result.connectMs)),
    ...result.joinMs === undefined ? [] : [row('join', spread(result.joinMs))],
    row('delivery', spread(result.deliveryMs)),
    '',
    fact('sent', `${count(sent)} of ${count(asked)}`),
    fact('delivered', `${count(delivered)} of ${count(due)} (${percent(delivered, due)}), ` +
      `${count(Math.round(delivered / Math.max(seconds, 0.001)))} per second`),
    fact('missing', count(due - delivered)),
    fact('doubled', count(doubled)),
    fact('out of order', count(outOfOrder)),
    ...reasons('refused', result.refused),
    ...reasons('cut off', result.lost),
    ...reasons('failed', result.failed),
    '',
    ...verdict(result),
    ...result.sameMachine === undefined
      ? []
      : [`The server is on this machine, too, and shares its ${plural(result.sameMachine.cores, 'core')} with this program, ` +
        'unlike a server in production.']
  ]
  return `${lines.join('\n')}\n`
}

const labelWidth = 14

function row (label: string, cells: readonly string[]): string {
  return label.padEnd(labelWidth) + cells.map(cell => cell.padStart(10)).join('')
}

function spread (times: Spread | undefined): string[] {
  return times === undefined ? ['-', '-', '-', '-'] : [times.p50, times.p90, times.p99, times.max].map(ms => ms.toFixed(1))
}

function fact (label: string, text: string): string {
  return label.padEnd(labelWidth) + text
}

function reasons (label: string, counted: Counted): string[] {
  return counted.map(({ reason, count: times }) => fact(label, `${count(times)} x ${reason}`))
}

function verdict ({ own, bottleneck, connectBottleneck }: BenchResult): string[] {
  const { cpu, lagMs, sentLateMs } = own
  const usage = `This program: ${Math.round(cpu * 100)} % of a core, event loop late by ${lagMs.p99.toFixed(1)} ms (p99), ` +
    `${lagMs.max.toFixed(1)} ms (max); messages sent late by at most ${sentLateMs.toFixed(1)} ms.`
  const connecting = connectBottleneck.length === 0
    ? []
    : [`While the clients connected it was: ${connectBottleneck.join(', and ')}. A lower --connect-rate gives the server's times.`]
  if (bottleneck.length === 0) return [usage, 'It was not the bottleneck.', ...connecting]
  return [
    usage,
    `It was the bottleneck: ${bottleneck.join(', and ')}.`,
    'The times above are more its own than the server\'s: take fewer clients or a lower --rate, or start it on several machines.',
    ...connecting
  ]
}
