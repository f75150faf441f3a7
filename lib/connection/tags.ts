/** What a connection was given at its joins, for broadcasts that are filtered. */
export class Tags {
  readonly #byGroup = new Map<string, readonly string[]>()

  /** Instead of those that it was given in the group before. */
  set (group: string, tags: readonly string[]): void {
    this.#byGroup.set(group, [...tags])
  }

  /** The connection left the group. */
  delete (group: string): void {
    this.#byGroup.delete(group)
  }

  /** Whether all of these were given, in the groups or, without them, in any. */
  includes (tags: readonly string[], groups: Iterable<string> = this.#byGroup.keys()): boolean {
    const given = new Set(Array.from(groups, group => this.#byGroup.get(group) ?? []).flat())
    return tags.every(tag => given.has(tag))
  }
}
