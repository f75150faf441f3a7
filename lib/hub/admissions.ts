/** One connection, or one upgrade that is about to become one, in the counts of `Admissions`. */
export interface Admission {
  /** What the address is counted by; '' for none. */
  readonly address: string
  readonly userId: string | undefined
}

/** How many connections this instance has, by address and by user. Upgrades count from the moment they are admitted. */
export class Admissions {
  readonly #addresses = new Map<string, number>()
  readonly #users = new Map<string, number>()
  readonly #open = new Set<Admission>()

  get total (): number {
    return this.#open.size
  }

  ofAddress (address: string): number {
    return this.#addresses.get(address) ?? 0
  }

  ofUser (userId: string): number {
    return this.#users.get(userId) ?? 0
  }

  add (address: string, userId: string | undefined): Admission {
    const admission: Admission = { address, userId }
    this.#open.add(admission)
    if (address !== '') count(this.#addresses, address, 1)
    if (userId !== undefined) count(this.#users, userId, 1)
    return admission
  }

  /** Returns whether it was still counted. */
  remove (admission: Admission): boolean {
    if (!this.#open.delete(admission)) return false
    const { address, userId } = admission
    if (address !== '') count(this.#addresses, address, -1)
    if (userId !== undefined) count(this.#users, userId, -1)
    return true
  }

  stats (): Record<string, number> {
    return { admitted: this.#open.size, addresses: this.#addresses.size, users: this.#users.size }
  }
}

function count (counts: Map<string, number>, name: string, step: number): void {
  const sum = (counts.get(name) ?? 0) + step
  if (sum === 0) counts.delete(name)
  else counts.set(name, sum)
}
