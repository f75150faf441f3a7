import type { AppendTarget, LogLimits } from '../../backplane.ts'

const maxBatchItems = 64
const maxBatchBytes = 262_144

export interface LaneItem {
  /** The sequence of an item is larger than those of all earlier items. */
  readonly sequence: number
  readonly targets: readonly AppendTarget[]
  /** An item with an idempotency key goes in a batch of its own. */
  readonly key: string | undefined
  readonly bytes: number
}

/** The waiting items of one group, oldest first. */
interface Lane<Item extends LaneItem> {
  readonly group: string
  readonly items: Item[]
  /** A batch of this lane is under way. */
  busy: boolean
  /** How many items go with the batch that is being made. */
  taken: number
}

export interface Batch<Item extends LaneItem> {
  /** Oldest first. */
  readonly items: Item[]
  readonly lanes: ReadonlyArray<Lane<Item>>
}

/**
 * One queue per group. An item for several groups stands in the queue of each, and goes when it is the first in all of them, so the order
 * of the calls holds in every group. A lane has one batch under way at a time. Items that gather meanwhile go together in the next batch,
 * with those of other lanes if an item for several groups connects them.
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
    // Later in this turn of the event loop, so that all items of the turn go together.
    if (this.#due.size === 0) queueMicrotask(() => this.#startDue())
    for (const lane of this.#lanesOf(item)) {
      lane.items.push(item)
      this.#due.add(lane)
    }
  }

  /** Removes and returns all waiting items; batches that are under way go on. */
  clear (): Set<Item> {
    const items = new Set<Item>()
    for (const lane of this.#lanes.values()) for (const item of lane.items.splice(0)) items.add(item)
    return items
  }

  #lanesOf ({ targets }: Item): Array<Lane<Item>> {
    return targets.map(({ group }) => {
      const known = this.#lanes.get(group)
      if (known !== undefined) return known
      const lane = { group, items: [], busy: false, taken: 0 }
      this.#lanes.set(group, lane)
      return lane
    })
  }

  #startDue (): void {
    const due = [...this.#due]
    this.#due.clear()
    for (const lane of due) this.#start(lane)
  }

  #start (lane: Lane<Item>): void {
    if (lane.busy) return
    if (lane.items.length === 0) {
      if (this.#lanes.get(lane.group) === lane) this.#lanes.delete(lane.group)
      return
    }
    const batch = this.#take(lane)
    // If nothing was taken, the first item of this lane waits for another lane, which starts it.
    if (batch.items.length === 0) return
    for (const one of batch.lanes) one.busy = true
    void this.#run(batch).then(() => {
      for (const one of batch.lanes) one.busy = false
      for (const one of batch.lanes) this.#start(one)
    })
  }

  /** Takes items from the front of this lane, and of the lanes that its items lead to, as long as they are next in all of their lanes. */
  #take (start: Lane<Item>): Batch<Item> {
    const lanes = [start]
    const items: Item[] = []
    let bytes = 0
    for (const lane of lanes) {
      for (let item = lane.items[lane.taken]; item !== undefined; item = lane.items[lane.taken]) {
        const own = item.targets.length === 1 ? [lane] : this.#lanesOf(item)
        const size = item.bytes * own.length
        if (items.length > 0 && (items.length >= maxBatchItems || bytes + size > maxBatchBytes || !mayJoin(item, items))) break
        const isNext = (one: Lane<Item>): boolean => !one.busy && one.items[one.taken] === item
        if (!own.every(one => isNext(one) && sameLimits(limitsIn(item, one), limitsIn(one.items[0], one)))) break
        items.push(item)
        bytes += size
        // The first item of all is one of `start`.
        for (const one of own) if (one.taken++ === 0 && one !== start) lanes.push(one)
      }
    }
    for (const lane of lanes) {
      lane.items.splice(0, lane.taken)
      lane.taken = 0
    }
    return { items: lanes.length === 1 ? items : items.sort((a, b) => a.sequence - b.sequence), lanes }
  }
}

function mayJoin (item: LaneItem, items: readonly LaneItem[]): boolean {
  return item.key === undefined && items[0]?.key === undefined
}

function limitsIn (item: LaneItem | undefined, lane: { readonly group: string }): LogLimits | undefined {
  const targets = item?.targets ?? []
  return targets.length === 1 ? targets[0]?.log : targets.find(({ group }) => group === lane.group)?.log
}

function sameLimits (a: LogLimits | undefined, b: LogLimits | undefined): boolean {
  return a === b || (a?.maxMessages === b?.maxMessages && a?.maxBytes === b?.maxBytes && a?.ttlMs === b?.ttlMs)
}
