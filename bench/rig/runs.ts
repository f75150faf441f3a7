import { load, type Name } from '../systems/system.ts'
import type { Ages } from './load-generator.ts'

export type Figures = Readonly<Record<string, number>>

/** What was the same in all runs of a cell, as far as it differs between cells. */
type Conditions = Readonly<Record<string, string | number | boolean>>

export interface Run {
  readonly figures: Figures
  readonly buckets?: Ages['buckets']
  readonly firstRefusal?: string
}

/** One system under one set of conditions. */
export interface Cell {
  readonly system: Name
  readonly title: string
  readonly conditions: Conditions
  /** Of each figure by itself. */
  readonly median: Figures
  readonly runs: readonly Run[]
}

interface Experiment<Given extends object> {
  readonly systems: readonly Name[]
  readonly conditions: readonly Given[]
  readonly runs: number
  readonly run: (system: Name, conditions: Given) => Promise<Run>
}

/** Side by side: each round has each system once under each set of conditions, so that other work on the machine hits all alike. */
export async function perform<Given extends object> ({ systems, conditions, runs, run }: Experiment<Given>): Promise<Cell[]> {
  const cells = conditions.flatMap(conditions => systems.map(system => ({ system, conditions, runs: new Array<Run>() })))
  for (let round = 1; round <= runs; round++) {
    for (const [i, { system, conditions, runs }] of cells.entries()) {
      const label = `round ${round}, ${i + 1} of ${cells.length}: ${system} ${JSON.stringify(conditions)}`
      try {
        runs.push(await run(system, conditions))
        console.error(label)
      } catch (error) {
        console.error(`${label} failed: ${String(error)}`)
      }
    }
  }
  return await Promise.all(cells.filter(({ runs }) => runs.length > 0).map(async ({ system, conditions, runs }) => (
    { system, title: await title(system), conditions: { ...conditions } as Conditions, median: medians(runs), runs })
  ))
}

async function title (name: Name): Promise<string> {
  return name === 'floor' ? 'floor: write() in C, no Redis' : (await load(name)).name
}

function medians (runs: readonly Run[]): Figures {
  const names = Object.keys(runs[0]?.figures ?? {})
  return Object.fromEntries(names.map(name => [name, median(runs.map(({ figures }) => figures[name] ?? 0))]))
}

export function median (values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const [low = 0, high = 0] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]]
  return (low + high) / 2
}

/** What one cost by what the other did in the same round: the median and, in parentheses, the quartiles. */
export function pairedRatio (costs: readonly number[], others: readonly number[]): string {
  const ratios = costs.map((cost, round) => cost / (others[round] ?? NaN)).sort((a, b) => a - b)
  const [low = 0, high = 0] = [ratios[ratios.length >> 2], ratios[(3 * ratios.length) >> 2]]
  return `${median(ratios).toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`
}
