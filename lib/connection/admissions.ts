/** One connection, or one upgrade that is about to become one, in the counts of `Admissions`. */
export interface Admission {
  /** The key that the address is counted by; '' for none. */
  readonly address: string
  readonly userId: string | undefined
}

/** How many connections this instance has, by address and by user. Upgrades count from the moment they are admitted. */
export class Admissions {
  readonly #addresses = new Map<string, number>()
  readonly #users = new Map<string, number>()
  #total = 0

  get total (): number {
    return this.#total
  }

  ofAddress (address: string): number {
    return this.#addresses.get(address) ?? 0
  }

  ofUser (userId: string): number {
    return this.#users.get(userId) ?? 0
  }

  userIds (): Iterable<string> {
    return this.#users.keys()
  }

  add (address: string, userId: string | undefined): Admission {
    this.#count(address, userId, 1)
    return { address, userId }
  }

  /** Gives the counts back. Call it once for each `add`, with the result of `add` or with the connection, which has the same two fields. */
  remove ({ address, userId }: Admission): void {
    this.#count(address, userId, -1)
  }

  stats (): Record<string, number> {
    return { admitted: this.#total, addresses: this.#addresses.size, users: this.#users.size }
  }

  #count (address: string, userId: string | undefined, step: number): void {
    this.#total += step
    if (address !== '') add(this.#addresses, address, step)
    if (userId !== undefined) add(this.#users, userId, step)
  }
}

function add (counts: Map<string, number>, name: string, step: number): void {
  const sum = (counts.get(name) ?? 0) + step
  if (sum === 0) counts.delete(name)
  else counts.set(name, sum)
}
