import type { MeasuredFile } from '../results.ts'
import type { Cell } from '../rig/runs.ts'
import { barChart } from './bars.ts'
import { lineChart, type Point, type Series } from './chart.ts'
import { looks } from './labels.ts'

type Draw = (file: MeasuredFile) => string

function range (cell: Cell, figure: string): Omit<Point, 'x'> {
  const values = cell.runs.map(({ figures }) => figures[figure] ?? 0)
  return { y: cell.median[figure] ?? 0, low: Math.min(...values), high: Math.max(...values) }
}

/** A line for each system: a figure over a condition. */
function series (cells: readonly Cell[], condition: string, figure: string): Series[] {
  return [...new Set(cells.map(({ system }) => system))].map(system => ({
    ...looks[system],
    points: cells.filter(cell => cell.system === system).map(
      cell => ({ x: Number(cell.conditions[condition]), ...range(cell, figure) })
    ).sort((a, b) => a.x - b.x)
  }))
}

function lines (
  title: string, [condition, xTitle]: readonly [string, string], [figure, yTitle]: readonly [string, string],
  wanted: (cell: Cell) => boolean = () => true
): Draw {
  return ({ cells }) => lineChart({ title, xTitle, yTitle, series: series(cells.filter(wanted), condition, figure) })
}

const curve = (name: string) => ({ conditions }: Cell): boolean => conditions.curve === name
const rate = ['perSecond', 'messages per second, published to one group'] as const
const members = ['clients', 'members of the group'] as const
const serverCpu = ['serverUs', 'server CPU per delivery, µs'] as const
const p99 = ['p99Ms', 'latency p99, ms'] as const

/** The plots of each scenario, by the name of their file. */
export const plots: Readonly<Record<string, Readonly<Record<string, Draw>>>> = {
  'fan-out': {
    'delivered-by-rate': lines('What arrives of what is published', rate, ['deliveredPerSecond', 'deliveries per second'], curve('rate')),
    'latency-by-rate': lines('Latency, 99 of 100 deliveries', rate, p99, curve('rate')),
    'cpu-by-rate': lines('CPU of a delivery, by rate', rate, serverCpu, curve('rate')),
    'cpu-by-members': lines('CPU of a delivery, by members', members, serverCpu, curve('members')),
    'latency-by-members': lines('Latency, 99 of 100 deliveries, by members', members, p99, curve('members'))
  },
  'small-groups': {
    'cpu-by-instances': lines(
      'CPU of a delivery in small groups, all instances together', ['instances', 'instances that share the members'], serverCpu,
      curve('instances')
    ),
    'redis-by-instances': lines(
      'CPU of Redis for a message in small groups', ['instances', 'instances that share the members'],
      ['redisUsPerMessage', 'Redis CPU per message, µs'], curve('instances')
    ),
    'cpu-by-groups': lines(
      'CPU of a delivery in small groups, by groups', ['groups', 'groups, on two instances'], serverCpu, curve('groups')
    )
  },
  'join-storm': {
    'redis-by-groups': lines('CPU of Redis for a join', ['groups', 'groups that are joined'], ['redisUs', 'Redis CPU per join, µs'])
  },
  sizes: {
    'cpu-by-size': lines(
      'CPU of a delivery by size, text', ['bytes', 'bytes of a message'], serverCpu, ({ conditions }) => conditions.binary === false
    )
  },
  idle: {
    'memory-by-connections': lines('Memory of the server', ['clients', 'idle connections'], ['rssMb', 'resident memory, MB']),
    'memory-per-connection' ({ cells }) {
      const most = Math.max(...cells.map(({ conditions }) => Number(conditions.clients)))
      const bars = cells.filter(({ conditions }) => conditions.clients === most).map(cell => {
        const { y: value, low, high } = range(cell, 'rssKb')
        return { ...looks[cell.system], value, low, high, part: cell.median.heapKb ?? 0 }
      })
      return barChart({
        title: `Memory per connection, ${most.toLocaleString('en')} idle ones`,
        xTitle: 'resident memory, KB',
        partTitle: 'dark: in the JavaScript heap',
        bars
      })
    }
  }
}
