/** The problem of a backplane before `start` and after `close`. */
export const notOpen = 'the backplane is not started, or is closed'

/** Joins the problems of many partitions: one sentence for each, with the partitions that have it. */
export function groupProblems (byPartition: Iterable<readonly [partition: number, problems: readonly string[]]>, total: number): string[] {
  const partitions = new Map<string, number[]>()
  for (const [partition, problems] of byPartition) {
    for (const problem of problems) partitions.set(problem, [...partitions.get(problem) ?? [], partition])
  }
  return [...partitions].map(([problem, list]) => `${problem} (partition${list.length > 1 ? 's' : ''} ${ranges(list)} of ${total})`)
}

/** '0-84, 90' */
function ranges (sorted: readonly number[]): string {
  const list: Array<[first: number, last: number]> = []
  for (const one of sorted) {
    const range = list.at(-1)
    if (range !== undefined && range[1] === one - 1) range[1] = one
    else list.push([one, one])
  }
  return list.map(([first, last]) => first === last ? String(first) : `${first}-${last}`).join(', ')
}
