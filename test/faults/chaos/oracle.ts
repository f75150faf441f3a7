import type { GapReason } from '../../../lib/backplane/backplane.ts'
import type { Report } from './events.ts'

interface Place { readonly epoch: string, readonly offset: number, readonly nonce: number }
interface Gap { readonly reason: GapReason, readonly from: Place, readonly to: Place }

/** One group on one instance, from its start to its end. */
interface Track {
  readonly start: Place
  /** How many messages had been seen by then. A failover may have lost some of them after the start: those were never owed to it. */
  readonly startedAt: number
  last: Place
  /** Something was delivered since the last gap. */
  moved: boolean
  readonly gaps: Gap[]
  /** Message -> how many gaps that mean lost data came before its delivery. */
  readonly got: Map<string, number>
  readonly places: Set<string>
  /** Publisher -> its latest message here, since the last loss of data. */
  readonly numbers: Map<string, number>
  losses: number
  /** Losses of data that this instance has to tell of, each once. */
  expected: number
  /** Those it may tell of: a loss while it had seen nothing yet counts when messages came just before the data went. */
  possible: number
}

/** Sees everything that is published and delivered, and knows which data Redis was made to lose. */
export class Oracle {
  readonly totals = {
    published: 0,
    refused: 0,
    timedOut: 0,
    queueFull: 0,
    queued: 0,
    delivered: 0,
    repeatedAfterLoss: 0,
    lostAndSignalled: 0,
    lostSilently: 0,
    doubled: 0,
    reordered: 0,
    falseGaps: 0,
    refusedButStored: 0
  }

  readonly gaps: Record<GapReason, number> = { epoch: 0, rewound: 0, trimmed: 0 }
  readonly violations: string[] = []
  readonly #tracks = new Map<string, Track>()
  /** Group and position -> message: one order for all. */
  readonly #log = new Map<string, string>()
  readonly #seenAt = new Map<string, number>()
  readonly #stored = new Map<string, { readonly group: number, readonly place: Place }>()
  readonly #outcomes = new Map<string, 'refused' | 'timedOut'>()
  readonly #epochs = new Map<string, number>()
  readonly #where = new Map<string, Set<string>>()
  /** Group and epoch -> the highest offset that was seen. */
  readonly #tops = new Map<string, number>()
  readonly #keep: (group: number) => number

  /** `keep`: how many messages the log of a group keeps. */
  constructor (keep: (group: number) => number) {
    this.#keep = keep
  }

  report (life: string, report: Report): void {
    switch (report[0]) {
      case 'open': return this.#open(life, report[1], { epoch: report[2], offset: report[3], nonce: report[4] })
      case 'got':
      case 'repeated':
        return this.#got(life, report[1], { epoch: report[2], offset: report[3], nonce: report[4] }, report[5], report[0] === 'repeated')
      case 'gap': return this.#gap(life, report[1], report[2], { epoch: report[3], offset: report[4], nonce: report[5] })
      case 'stored': {
        const place = { epoch: report[2], offset: report[3], nonce: report[4] }
        this.totals.published++
        if (report[6]) this.totals.queued++
        this.#stored.set(report[5], { group: report[1], place })
        return this.#place(report[1], place, report[5])
      }
      case 'failed': return this.#failed(report[1], report[2])
    }
  }

  /** Redis lost everything, or what this group's log got lately: all who follow it have to say so, once. */
  dataLost (lives: Iterable<string>, groups: Iterable<number>): void {
    for (const life of lives) {
      for (const group of groups) {
        const track = this.#tracks.get(`${life} ${group}`)
        if (track === undefined) continue
        track.possible++
        if (track.last.offset > 0) track.expected++
      }
    }
  }

  /** Losses of data that were not told yet. */
  untold (lives: Iterable<string>): string[] {
    const alive = new Set(lives)
    return [...this.#tracks].filter(
      ([key, { losses, expected }]) => alive.has(key.split(' ')[0] ?? '') && losses < expected
    ).map(([key]) => key)
  }

  /** How far an instance has come. */
  last (life: string, group: number): Place | undefined {
    return this.#tracks.get(`${life} ${group}`)?.last
  }

  violate (counter: keyof Oracle['totals'], what: string, by = 1): void {
    this.totals[counter] += by
    this.violations.push(what)
  }

  /** To be called when all living instances have everything. */
  finish (lives: Iterable<string>): void {
    for (const life of lives) {
      for (const [id, { group, place }] of this.#stored) {
        const track = this.#tracks.get(`${life} ${group}`)
        if (track === undefined) this.violate('lostSilently', `${life} never opened group ${group}`)
        else if (!track.places.has(key(group, place)) && this.#isOwed(group, place, track)) {
          this.#assertSignalled(life, track, id, group, place)
        }
      }
    }
    for (const [key, { losses, possible }] of this.#tracks) {
      if (losses > possible) {
        this.violate('falseGaps', `${key} tells of ${losses} losses of data where ${possible} happened`, losses - possible)
      }
    }
    for (const [id, outcome] of this.#outcomes) {
      const where = this.#where.get(id)
      if (where === undefined) continue
      if (outcome === 'refused') this.violate('refusedButStored', `${id} was refused, and stored at ${[...where].join(' and ')}`)
    }
    for (const [id, where] of this.#where) {
      // A batch whose reply was lost together with the data is appended again to what is left: in another epoch, or after the fork.
      const kept = [...where].filter(
        one => [...this.#tracks.values()].every(({ gaps }) => !gaps.some(gap => gap.reason === 'rewound' && isBeyond(gap, one)))
      )
      const epochs = new Set(kept.map(one => one.split(' ')[1]))
      if (epochs.size < kept.length) this.violate('doubled', `${id} is stored at ${kept.join(' and ')}`)
    }
  }

  #open (life: string, group: number, start: Place): void {
    this.#epoch(start.epoch)
    this.#tracks.set(`${life} ${group}`, {
      start,
      startedAt: this.#log.size,
      last: start,
      moved: false,
      gaps: [],
      got: new Map(),
      places: new Set(),
      numbers: new Map(),
      losses: 0,
      expected: 0,
      possible: 0
    })
  }

  #got (life: string, group: number, place: Place, id: string, repeated: boolean): void {
    this.totals.delivered++
    this.#place(group, place, id)
    if (!this.#tracks.has(`${life} ${group}`)) this.#open(life, group, { ...place, offset: place.offset - 1 })
    const track = this.#tracks.get(`${life} ${group}`) as Track
    const { last, losses } = track
    const what = `${life} got ${id} at ${key(group, place)} after ${key(group, last)}`
    const first = last.offset === 0 && place.offset === 1
    if (!first && place.epoch !== last.epoch) this.violate('lostSilently', `${what}: another epoch`)
    else if (place.offset > last.offset + 1) this.violate('lostSilently', what, place.offset - last.offset - 1)
    else if (!first && place.offset <= last.offset) this.violate('reordered', what)
    const before = track.got.get(id)
    if (track.places.has(key(group, place))) this.violate('doubled', what)
    else if (repeated && before !== undefined && before < losses) this.totals.repeatedAfterLoss++
    else if (repeated) this.violate('lostSilently', `${what}, and passed it over`)
    else if (before !== undefined) this.violate('doubled', what)
    const [publisher = '', , number = ''] = id.split('/')
    if ((track.numbers.get(publisher) ?? -1) >= Number(number) && before === undefined) {
      this.violate('reordered', `${what}: ${publisher} is at ${track.numbers.get(publisher)}`)
    }
    track.numbers.set(publisher, Number(number))
    track.got.set(id, losses)
    track.places.add(key(group, place))
    track.last = place
    track.moved = true
  }

  #gap (life: string, group: number, reason: GapReason, to: Place): void {
    this.gaps[reason]++
    this.#epoch(to.epoch)
    const track = this.#tracks.get(`${life} ${group}`)
    if (track === undefined) return this.violate('falseGaps', `${life} tells of a gap in group ${group} before it follows it`)
    const { last: from } = track
    const what = `${life} tells of ${reason} from ${key(group, from)} to ${key(group, to)}`
    if (reason === 'trimmed' && ((to.epoch !== from.epoch && from.offset > 0) || to.offset <= from.offset)) this.violate('falseGaps', what)
    if (reason === 'epoch' && to.epoch === from.epoch) this.violate('falseGaps', what)
    if (reason === 'rewound' && to.epoch !== from.epoch) this.violate('falseGaps', what)
    if (reason !== 'trimmed') {
      track.losses++
      track.numbers.clear()
      if (track.losses > track.possible) this.violations.push(`${what}: no data was lost`)
    }
    track.gaps.push({ reason, from, to })
    track.last = to
    track.moved = false
  }

  #failed (code: string, id: string): void {
    if (code === 'WSG_TIMEOUT') {
      this.totals.timedOut++
      this.#outcomes.set(id, 'timedOut')
    } else {
      if (code === 'WSG_QUEUE_FULL') this.totals.queueFull++
      else if (code === 'WSG_BACKPLANE_UNAVAILABLE') this.totals.refused++
      else this.violations.push(`${id} failed with ${code}`)
      this.#outcomes.set(id, 'refused')
    }
  }

  #place (group: number, place: Place, id: string): void {
    this.#epoch(place.epoch)
    const where = key(group, place)
    const known = this.#log.get(where)
    if (known !== undefined && known !== id) this.violate('reordered', `${where} is ${known} for some and ${id} for others`)
    if (known === undefined) this.#seenAt.set(where, this.#log.size)
    this.#log.set(where, id)
    const log = `${group} ${place.epoch}`
    this.#tops.set(log, Math.max(this.#tops.get(log) ?? 0, place.offset))
    const all = this.#where.get(id)
    if (all === undefined) this.#where.set(id, new Set([where]))
    else all.add(where)
  }

  #assertSignalled (life: string, { gaps }: Track, id: string, group: number, place: Place): void {
    const told = gaps.some(({ reason, from, to }) => {
      if (reason === 'trimmed') return place.epoch === to.epoch && place.offset > from.offset && place.offset <= to.offset
      if (reason === 'rewound') return place.epoch === to.epoch && (place.offset > to.offset || this.#isTrimmed(group, place))
      return (place.epoch === from.epoch && place.offset > from.offset) || (place.epoch === to.epoch && place.offset <= to.offset) ||
        (this.#epoch(from.epoch) < this.#epoch(place.epoch) && (to.epoch === '' || this.#epoch(place.epoch) < this.#epoch(to.epoch)))
    })
    if (told) this.totals.lostAndSignalled++
    else {
      this.violate(
        'lostSilently', `${life} never got ${id} of ${key(group, place)} and was not told; ${this.#describe(life, group, place, id)}`
      )
    }
  }

  /**
   * Whether the log went on so far that it does not keep the place any more. Of a log that lost its latest messages, and as many as it
   * keeps came on another branch before a reader was back, that reader can tell one loss only: the log goes on where it begins now.
   */
  #isTrimmed (group: number, { epoch, offset }: Place): boolean {
    return (this.#tops.get(`${group} ${epoch}`) ?? 0) >= offset + this.#keep(group)
  }

  /** Who has what at that place. */
  #describe (life: string, group: number, place: Place, id: string): string {
    const where = key(group, place)
    const rivals = [...this.#log].filter(([other]) => other !== where && other.startsWith(`${group} ${place.epoch} ${place.offset} `))
    const owners = [...this.#tracks].filter(([name, { places }]) => name.endsWith(` ${group}`) && places.has(where)).map(([name]) => name)
    const track = this.#tracks.get(`${life} ${group}`)
    const gaps = track?.gaps.map(({ reason, from, to }) => `${reason} from ${key(group, from)} to ${key(group, to)}`)
    const start = track &&
      `since message ${track.startedAt} at ${key(group, track.start)}, now at ${key(group, track.last)}, gaps: ${gaps?.join(', ')}`
    return `message ${this.#seenAt.get(where)}, known at ${[...this.#where.get(id) ?? []].join(' and ')}; ${start}; ` +
      `it is with ${owners.join() || 'nobody'}; also there: ${rivals.join() || 'nothing'}`
  }

  #isOwed (group: number, place: Place, { start, startedAt }: Track): boolean {
    if ((this.#seenAt.get(key(group, place)) ?? 0) < startedAt) return false
    return place.epoch === start.epoch ? place.offset > start.offset : this.#epoch(place.epoch) > this.#epoch(start.epoch)
  }

  /** Epochs in the order in which they were seen. */
  #epoch (epoch: string): number {
    const known = this.#epochs.get(epoch)
    if (known !== undefined) return known
    this.#epochs.set(epoch, this.#epochs.size)
    return this.#epochs.size - 1
  }
}

function key (group: number, { epoch, offset, nonce }: Place): string {
  return `${group} ${epoch} ${offset} ${nonce}`
}

/** Whether the place may be on the branch of a log that this gap tells the end of. */
function isBeyond ({ to }: Gap, where: string): boolean {
  const [, epoch, offset] = where.split(' ')
  return epoch === to.epoch && Number(offset) > to.offset
}
