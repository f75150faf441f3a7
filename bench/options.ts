import type { DrillName, Name } from './systems/system.ts'

/** What was given on the command line: `--name value`, any number of times. */
export class Arguments {
  readonly #given = new Map<string, string>()

  constructor (args: readonly string[]) {
    for (let i = 0; i < args.length; i += 2) {
      const [name = '', value] = args.slice(i, i + 2)
      if (!name.startsWith('--') || value === undefined) {
        throw new Error(`options are given as --name value, not as ${args.slice(i, i + 2).join(' ')}`)
      }
      this.#given.set(name.slice(2), value)
    }
  }

  // Bound, so that scenarios can take apart what they get.
  readonly get = (name: string): string | undefined => this.#given.get(name)
  readonly number = (name: string, standard: number): number => Number(this.get(name) ?? standard)
  readonly text = (name: string, standard: string): string => this.get(name) ?? standard
  /** Separated by commas. */
  readonly numbers = (
    name: string, standard: readonly number[]
  ): readonly number[] => this.get(name)?.split(',').filter(part => part !== '').map(Number) ?? standard
}

export interface DrillOptions extends Pick<Arguments, 'number' | 'numbers' | 'text'> {
  readonly systems: readonly DrillName[]
}

export interface MeasureOptions extends Pick<Arguments, 'number' | 'numbers' | 'text'> {
  /** Those that were asked for, or else those of `standard`. */
  systems (standard: readonly Name[]): readonly Name[]
  readonly runs: number
}
