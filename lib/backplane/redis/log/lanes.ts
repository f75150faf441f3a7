import type { AppendTarget, LogLimits } from '../../backplane.ts'

const maxBatchMessages = 64
const maxBatchBytes = 262_144

export interface LaneItem {
  readonly targets: readonly AppendTarget[]
  /** An item with an idempotency key goes alone. */
  readonly key: string | undefined
  readonly bytes: number
}

/** The items of one group that wait, oldest first. */
export interface Lane<Item extends LaneItem> {
  readonly group: string
  readonly items: Item[]
  /** A batch of this lane is under way. */
  busy: boolean
}

export interface Batch<Item extends LaneItem> {
  readonly items: Item[]
  readonly lanes: ReadonlyArray<Lane<Item>>
}

/**
 * One queue per group that keeps a log. An item for several groups stands in the queue of each, and goes when it is the first in all of
 * them; so the order of the calls holds in every group. A lane has one batch under way at a time.
 */
export class Lanes<Item extends LaneItem> {
  readonly #run: (batch: Batch<Item>) => Promise<void>
  readonly #lanes = new Map<string, Lane<Item>>()
  readonly #due = new Set<Lane<Item>>()

  /** `run` never rejects; the next batch of the same lanes begins when it resolves. */
  constructor (run: (batch: Batch<Item>) => Promise<void>) {
    this.#run = run
  }

  add (item: Item): void {
    const lanes = this.#lanesOf(item)
    for (const lane of lanes) lane.items.push(item)
    // Not at once, so that all items of this turn go together.
    for (const lane of lanes) {
      if (this.#due.size === 0) queueMicrotask(() => this.#startDue())
      this.#due.add(lane)
    }
  }

  /** Takes all waiting items away; batches that are under way go on. */
  clear (): Set<Item> {
    const items = new Set<Item>()
    for (const lane of this.#lanes.values()) for (const item of lane.items.splice(0)) items.add(item)
    return items
  }

  #lanesOf ({ targets }: Item): Array<Lane<Item>> {
    const lanes: Array<Lane<Item>> = []
    for (const { group, log } of targets) {
      if (log === undefined) continue
      let lane = this.#lanes.get(group)
      if (lane === undefined) this.#lanes.set(group, lane = { group, items: [], busy: false })
      lanes.push(lane)
    }
    return lanes
  }

  #startDue (): void {
    const due = [...this.#due]
    this.#due.clear()
    for (const lane of due) this.#start(lane)
  }

  #start (lane: Lane<Item>): void {
    if (lane.busy) return
    const [first] = lane.items
    if (first === undefined) {
      if (this.#lanes.get(lane.group) === lane) this.#lanes.delete(lane.group)
      return
    }
    const lanes = this.#lanesOf(first)
    // Else it waits for another lane, which starts it.
    if (lanes.some(({ items, busy }) => busy || items[0] !== first)) return
    const items = takeBatch(first, lanes)
    for (const one of lanes) one.busy = true
    void this.#run({ items, lanes }).then(() => {
      for (const one of lanes) one.busy = false
      for (const one of lanes) this.#start(one)
    })
  }
}

/** From the front of all these lanes: items for the same groups with the same settings, with nothing else between them. */
function takeBatch<Item extends LaneItem> (first: Item, lanes: ReadonlyArray<Lane<Item>>): Item[] {
  let size = 0
  let bytes = 0
  for (const item of lanes[0]?.items ?? []) {
    if (size > 0) {
      const fits = size < maxBatchMessages && (bytes + item.bytes) * lanes.length <= maxBatchBytes
      if (!fits || first.key !== undefined || item.key !== undefined) break
      if (!sameTargets(item.targets, first.targets) || lanes.some(({ items }) => items[size] !== item)) break
    }
    size++
    bytes += item.bytes
  }
  const [batch = []] = lanes.map(({ items }) => items.splice(0, size))
  return batch
}

function sameTargets (a: readonly AppendTarget[], b: readonly AppendTarget[]): boolean {
  return a.length === b.length && a.every(({ group, log }, index) => group === b[index]?.group && sameLimits(log, b[index].log))
}

function sameLimits (a: LogLimits | undefined, b: LogLimits | undefined): boolean {
  return a === b || (a?.maxMessages === b?.maxMessages && a?.maxBytes === b?.maxBytes && a?.ttlMs === b?.ttlMs)
}
