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
      const lane = { group, items: [], busy: false }
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
    /** How many items of each lane are taken. */
    const taken = new Map<Lane<Item>, number>([[start, 0]])
    const items: Item[] = []
    let bytes = 0
    for (const lane of taken.keys()) {
      for (let item = lane.items[taken.get(lane) ?? 0]; item !== undefined; item = lane.items[taken.get(lane) ?? 0]) {
        const lanes = this.#lanesOf(item)
        const size = item.bytes * lanes.length
        if (items.length > 0 && (items.length >= maxBatchItems || bytes + size > maxBatchBytes || !mayJoin(item, items))) break
        const isNext = (one: Lane<Item>): boolean => !one.busy && one.items[taken.get(one) ?? 0] === item
        if (!lanes.every(one => isNext(one) && sameLimits(limitsIn(item, one), limitsIn(one.items[0], one)))) break
        items.push(item)
        bytes += size
        for (const one of lanes) taken.set(one, (taken.get(one) ?? 0) + 1)
      }
    }
    for (const [lane, count] of taken) lane.items.splice(0, count)
    return { items: items.sort((a, b) => a.sequence - b.sequence), lanes: [...taken.keys()].filter(lane => (taken.get(lane) ?? 0) > 0) }
  }
}

function mayJoin (item: LaneItem, items: readonly LaneItem[]): boolean {
  return item.key === undefined && items[0]?.key === undefined
}

function limitsIn (item: LaneItem | undefined, lane: { readonly group: string }): LogLimits | undefined {
  return item?.targets.find(({ group }) => group === lane.group)?.log
}

function sameLimits (a: LogLimits | undefined, b: LogLimits | undefined): boolean {
  return a === b || (a?.maxMessages === b?.maxMessages && a?.maxBytes === b?.maxBytes && a?.ttlMs === b?.ttlMs)
}
