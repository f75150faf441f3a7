import { CloseCode } from '../protocol/close-codes.ts'

const own: ReadonlySet<number> = new Set(Object.values(CloseCode))

/** How many connections closed with each code. Clients choose codes at will, so codes without a meaning here are counted together. */
export class CloseCodes {
  readonly #counts = new Map<string, number>()

  add (code: number): void {
    const name = own.has(code) || (code >= 1000 && code <= 1015) ? String(code) : 'other'
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1)
  }

  entries (): Iterable<[string, number]> {
    return this.#counts
  }
}
