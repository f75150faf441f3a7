/** The tags that a connection was given when it joined its groups: broadcasts with a filter look at them. */
export class Tags {
  readonly #byGroup = new Map<string, readonly string[]>()

  /** Replaces the tags that the connection has in the group. */
  set (group: string, tags: readonly string[]): void {
    this.#byGroup.set(group, [...tags])
  }

  /** The connection left the group. */
  delete (group: string): void {
    this.#byGroup.delete(group)
  }

  /** Whether the connection has all of these tags, put together from these groups; without `groups`, from all of its groups. */
  includes (tags: readonly string[], groups: Iterable<string> = this.#byGroup.keys()): boolean {
    const given = new Set(Array.from(groups, group => this.#byGroup.get(group) ?? []).flat())
    return tags.every(tag => given.has(tag))
  }
}
