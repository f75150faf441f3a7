import type { StreamView } from '../../../lib/client/streams.ts'
import type { GapReason, ServerFrame } from '../../../lib/protocol/frames.ts'
import { volatile } from './groups.ts'
import { whole } from './texts.ts'

interface Place { readonly epoch: string, readonly offset: number, readonly nonce: number }

/** What one connection was told, in order. */
export interface Heard {
  readonly client: string
  readonly framed: boolean
  readonly events: Event[]
  /** It was open, and its groups were as they should be, when the test ended. */
  live: boolean
}

type Event =
  | {
    readonly kind: 'message'
    readonly at: number
    readonly id: string
    readonly group?: string | undefined
    readonly place?: Place | undefined
  }
  | { readonly kind: 'position', readonly at: number, readonly group: string, readonly place: Place }
  /** In the group from here on; of a raw connection `whole` says that the whole cluster knew. */
  | { readonly kind: 'joined', readonly at: number, readonly group: string, readonly whole: boolean }
  | { readonly kind: 'gap', readonly at: number, readonly group: string }

interface Sent {
  readonly to: readonly string[]
  readonly at: number
  ackedAt?: number
  refused?: string
}

/** A framed client, through all of its connections. */
export class Session {
  readonly cursors = new Map<string, Place | undefined>()
  /** Groups that the present connection was told to be in. */
  readonly joined = new Set<string>()
  readonly got = new Set<string>()
  /** What the present connection got, by whichever group; `got`: what all of them got out of logs. */
  readonly gotHere = new Set<string>()
  /** Group -> the epochs that it was told are over. */
  readonly lostData = new Map<string, string[]>()
  readonly streams = new Map<string, Pick<StreamView, 'text' | 'state'>>()
  /** The latest of what it was told, for reports. */
  readonly trace: string[] = []

  readonly name: string
  constructor (name: string) { this.name = name }
}

const logStart: Place = { epoch: '', offset: 0, nonce: 0 }
/** The default log. */
const kept = 1_000
/** A connection may be catching up for so long after a message of its first live ones. */
const catchUpMs = 1_000
/** Redis loses its data within so long after it was announced. */
const lossMs = 100
/** A message that is not acknowledged may be tried again for so long. */
const maxRetryMs = 10_000

function toPlace (position: string): Place {
  const bytes = Buffer.from(position, 'base64url')
  const epoch = bytes.toString('hex', 0, 8)
  return /^0+$/.test(epoch) ? logStart : { epoch, offset: bytes.readUIntBE(8, 6), nonce: bytes.readUInt32BE(14) }
}

/** Sees what every client sends and gets, and knows how often Redis was made to lose its data. */
export class Oracle {
  readonly totals = {
    published: 0,
    stored: 0,
    refused: 0,
    unknown: 0,
    severalGroups: 0,
    mixed: 0,
    delivered: 0,
    connections: 0,
    streamsRead: 0,
    streamsFailed: 0,
    lostSilently: 0,
    doubled: 0,
    reordered: 0,
    falseGaps: 0,
    refusedButStored: 0
  }

  readonly gaps: Record<GapReason, number> = { epoch: 0, rewound: 0, trimmed: 0, unavailable: 0 }
  readonly violations: string[] = []
  /** What the clients that something is wrong with were told just before. */
  readonly traces: string[] = []
  readonly #sent = new Map<string, Sent>()
  /** Group, epoch, offset -> what stands there. Epochs are in the order in which they were seen. */
  readonly #logs = new Map<string, Map<string, Array<{ nonce: number, id?: string } | undefined>>>()
  /** Group and message -> where it stands. In more than one log if it was stored anew, as the log that it stood in was lost. */
  readonly #places = new Map<string, readonly Place[]>()
  readonly #heard: Heard[] = []
  /** When Redis lost what it held. */
  readonly #losses: number[] = []
  readonly #now: () => number

  constructor (now = () => performance.now()) {
    this.#now = now
  }

  violate (kind: 'lostSilently' | 'doubled' | 'reordered' | 'falseGaps' | 'refusedButStored', what: string): void {
    this.totals[kind]++
    this.violations.push(`${kind}: ${what}`)
  }

  /** Redis is about to lose what it holds. */
  dataLost (): void {
    this.#losses.push(this.#now())
  }

  sent (id: string, to: readonly string[]): void {
    this.totals.published++
    if (to.length > 1) this.totals.severalGroups++
    if (to.length > 1 && to.includes(volatile)) this.totals.mixed++
    this.#sent.set(id, { to, at: this.#now() })
  }

  acked (id: string, position: string | undefined): void {
    const sent = this.#sent.get(id)
    if (sent === undefined) return
    this.totals.stored++
    sent.ackedAt = this.#now()
    const [group] = sent.to
    if (position !== undefined && sent.to.length === 1 && group !== undefined) this.#stands(group, toPlace(position), id)
  }

  failed (id: string, code: string): void {
    const sent = this.#sent.get(id)
    if (sent === undefined) return
    if (['WSG_TIMEOUT', 'UNKNOWN_OUTCOME', 'CLOSED'].includes(code)) {
      this.totals.unknown++
    } else {
      this.totals.refused++
      sent.refused = code
      if (!['WSG_BACKPLANE_UNAVAILABLE', 'WSG_QUEUE_FULL', 'QUEUE_FULL'].includes(code)) this.violations.push(`${id} failed with ${code}`)
    }
  }

  connected (client: string, framed: boolean): Heard {
    this.totals.connections++
    const heard: Heard = { client, framed, events: [], live: false }
    this.#heard.push(heard)
    return heard
  }

  /** A frame for a client of the framed protocol. */
  frame (session: Session, heard: Heard, frame: ServerFrame): void {
    const at = this.#now()
    if (frame.type !== 'presence' && frame.type !== 'members' && frame.type !== 'ack') {
      session.trace.push(`${Math.round(at)} ${describe(frame)}`)
      if (session.trace.length > 40) session.trace.shift()
    }
    switch (frame.type) {
      case 'welcome':
        session.joined.clear()
        session.gotHere.clear()
        return
      case 'joined': {
        const { group, recovered, reason, position } = frame
        const before = session.cursors.get(group)
        const again = session.joined.has(group)
        session.joined.add(group)
        const place = position === undefined ? undefined : toPlace(position)
        heard.events.push({ kind: 'joined', at, group, whole: true })
        if (again) return
        if (recovered === false || (before !== undefined && recovered === undefined)) {
          this.#gap(session, heard, group, reason ?? 'unavailable', place)
        } else if (before !== undefined && (place === undefined || key(place) !== key(before))) {
          this.violate('lostSilently', `${session.name} was at ${group} ${key(before)} and is told to go on from ${key(place)}`)
        }
        session.cursors.set(group, place)
        return
      }
      case 'left':
        session.joined.delete(frame.group)
        session.cursors.delete(frame.group)
        return
      case 'gap':
        this.#gap(session, heard, frame.group, frame.reason, toPlace(frame.position))
        return
      case 'position':
        this.#step(session, frame.group, toPlace(frame.position), undefined)
        heard.events.push({ kind: 'position', at, group: frame.group, place: toPlace(frame.position) })
        return
      case 'message': {
        const { id, type } = JSON.parse(frame.data) as { readonly id: string, readonly type?: string }
        // A piece of a stream: what the client makes of it comes to `stream`.
        if (type !== undefined) return
        this.totals.delivered++
        const { group, position } = frame
        if (group === volatile && position === undefined) {
          if (this.#sent.get(id)?.to.includes(volatile) !== true) this.violations.push(`${session.name} got ${id} in ${volatile}`)
          heard.events.push({ kind: 'message', at, id, group })
          return
        }
        if (group === undefined || position === undefined) {
          this.violations.push(`${session.name} got ${id} without a group or a position`)
          return
        }
        const place = toPlace(position)
        this.#step(session, group, place, id)
        heard.events.push({ kind: 'message', at, id, group, place })
      }
    }
  }

  /**
   * The handler of a framed client was called. What comes by a group without a log has no position that the client could come back with: a
   * later connection may be given it again, unless by that group what came out of a log. So may it be given what was stored anew, by an
   * instance that did not follow the group when the log was lost.
   */
  handled (session: Session, id: string, group: string | undefined): void {
    const others = this.#sent.get(id)?.to.some(other => other !== volatile && session.joined.has(other)) === true
    if (session.gotHere.has(id) || ((group !== volatile || others) && session.got.has(id) && !this.#isStoredAnew(id))) {
      this.violate('doubled', `${session.name} got ${id} twice`)
      this.traces.push(`${session.name} got ${id} twice: ${session.trace.join('\n')}`)
    }
    session.gotHere.add(id)
    if (group !== volatile) session.got.add(id)
  }

  /** What a client has of a stream: the whole text from its beginning, as far as it is made. */
  stream (session: Session, { group, id, text, state }: StreamView): void {
    const name = `${group} ${id}`
    const before = session.streams.get(name)
    session.streams.set(name, { text, state })
    const what = `${session.name} has ${state} ${name} as ${JSON.stringify(text)}`
    if (!whole.startsWith(text)) this.violate('reordered', what)
    if (text.length < (before?.text.length ?? 0)) this.violate('lostSilently', `${what}, after ${JSON.stringify(before?.text)}`)
    if (before?.state === 'done') this.violate('doubled', `${what}, after it was done`)
    if (state === 'failed') this.totals.streamsFailed++
    if (state !== 'done') return
    this.totals.streamsRead++
    if (text !== whole) this.violate('lostSilently', what)
  }

  /** What a client without a protocol got. */
  raw (heard: Heard, groups: readonly string[], text: string): string | undefined {
    const at = this.#now()
    const message = JSON.parse(text) as {
      readonly id: string, readonly in?: string, readonly gap?: string, readonly reason?: GapReason, readonly type?: string
    }
    if (message.type !== undefined) return undefined
    if (message.in !== undefined) {
      for (const group of groups) heard.events.push({ kind: 'joined', at, group, whole: message.in === 'cluster' })
      return message.id
    }
    if (message.gap !== undefined) {
      this.gaps[message.reason ?? 'unavailable']++
      heard.events.push({ kind: 'gap', at, group: message.gap })
      return undefined
    }
    this.totals.delivered++
    heard.events.push({ kind: 'message', at, id: message.id })
    return undefined
  }

  /** Who was told something that was sent to the group without a log alone, after that time. */
  reachedSince (since: number): Set<string> {
    const isIt = (event: Event): boolean => {
      const { to = [], at = 0 } = (event.kind === 'message' ? this.#sent.get(event.id) : undefined) ?? {}
      return at > since && to.length === 1 && to[0] === volatile
    }
    return new Set(this.#heard.filter(({ events }) => events.some(isIt)).map(({ client }) => client))
  }

  /** Where the group's log ends, as far as anybody was told; `undefined` when nothing was stored. */
  end (group: string): Place | undefined {
    const last = [...this.#logs.get(group) ?? []].at(-1)
    if (last === undefined) return undefined
    const [epoch, entries] = last
    return { epoch, offset: entries.length - 1, nonce: entries.at(-1)?.nonce ?? 0 }
  }

  /** What was lost, doubled or out of order, as far as only the whole shows it. */
  finish (sessions: readonly Session[]): void {
    for (const session of sessions) {
      for (const group of session.joined) {
        const [at, end] = [session.cursors.get(group), this.end(group)]
        if (end !== undefined && key(at) !== key(end)) {
          this.violate('lostSilently', `${session.name} ends at ${group} ${key(at)}, not at ${key(end)}`)
        }
      }
    }
    for (const [id, { refused, to }] of this.#sent) {
      const stored = to.some(group => this.#places.has(`${group} ${id}`))
      if (refused !== undefined && stored) this.violate('refusedButStored', `${id} ${refused}`)
    }
    for (const [group, epochs] of this.#logs) for (const entries of epochs.values()) this.#assertInTime(group, entries)
    this.#assertSameOrder()
    for (const heard of this.#heard) {
      this.#assertMixedOrder(heard)
      if (heard.framed) this.#assertOnePlace(heard)
      else this.#assertWhole(heard)
    }
  }

  #step (session: Session, group: string, place: Place, id: string | undefined): void {
    this.#stands(group, place, id)
    const before = session.cursors.get(group)
    session.cursors.set(group, place)
    if (before === undefined) return
    const what = `${session.name} got ${group} ${key(place)} ${id ?? ''} after ${key(before)}`
    if (place.offset !== before.offset + 1) this.traces.push(`${what}: ${session.trace.join('\n')}`)
    if (before.epoch !== '' && before.epoch !== place.epoch) this.violate('lostSilently', what)
    else if (place.offset > before.offset + 1) this.violate('lostSilently', what)
    else if (place.offset <= before.offset) this.violate('reordered', what)
  }

  #gap (session: Session, heard: Heard, group: string, reason: GapReason, place: Place | undefined): void {
    this.gaps[reason]++
    heard.events.push({ kind: 'gap', at: this.#now(), group })
    const before = session.cursors.get(group)
    session.cursors.set(group, place)
    const what = `${session.name} is told of ${reason} in ${group} from ${key(before)} to ${key(place)}`
    if (reason === 'epoch') {
      const told = session.lostData.get(group) ?? []
      session.lostData.set(group, told)
      // An instance that could not read the log (`unavailable`) puts it back to where that instance is, perhaps in a log that is over.
      if (before === undefined || before.epoch === '' || !told.includes(before.epoch)) told.push(before?.epoch ?? '')
      if (told.length > this.#losses.length) this.violate('falseGaps', `${what}: the data was lost ${this.#losses.length} times`)
    }
    if (reason === 'rewound') this.violate('falseGaps', what)
    if (reason === 'trimmed' && before !== undefined && place !== undefined && place.offset - before.offset < kept / 2) {
      this.violate('falseGaps', what)
    }
  }

  #stands (group: string, place: Place, id: string | undefined): void {
    if (place.epoch === '') return
    let epochs = this.#logs.get(group)
    if (epochs === undefined) this.#logs.set(group, epochs = new Map())
    let entries = epochs.get(place.epoch)
    if (entries === undefined) epochs.set(place.epoch, entries = [])
    const entry = entries[place.offset] ??= { nonce: place.nonce }
    if (entry.nonce !== place.nonce) this.violate('reordered', `${group} ${key(place)} has two nonces`)
    if (id === undefined) return
    if (entry.id !== undefined && entry.id !== id) {
      this.violate('reordered', `${group} ${key(place)} is ${entry.id} for some and ${id} for others`)
    }
    entry.id = id
    const places = this.#places.get(`${group} ${id}`) ?? []
    const known = places.find(({ epoch }) => epoch === place.epoch)
    if (known === undefined) this.#places.set(`${group} ${id}`, [...places, place])
    else if (known.offset !== place.offset) this.violate('doubled', `${id} stands in ${group} at ${key(known)} and ${key(place)}`)
  }

  /** What was acknowledged before another message was sent comes before it. */
  #assertInTime (group: string, entries: ReadonlyArray<{ readonly id?: string } | undefined>): void {
    let latest = 0
    let of = ''
    for (const entry of entries) {
      const sent = entry?.id === undefined ? undefined : this.#sent.get(entry.id)
      if (entry?.id === undefined || sent === undefined) continue
      if (sent.ackedAt !== undefined && sent.ackedAt < latest) {
        this.violate('reordered', `${entry.id} was acknowledged before ${of} was sent, and comes after it in ${group}`)
      }
      if (sent.at > latest) [latest, of] = [sent.at, entry.id]
    }
  }

  /** Whether the message had no answer when data was lost, so that it may have been stored anew: then not all of its places are known. */
  #isStoredAnew (id: string): boolean {
    const { at, ackedAt = at + maxRetryMs } = this.#sent.get(id) ?? { at: Infinity }
    return this.#losses.some(lostAt => at < lostAt + lossMs && ackedAt > lostAt)
  }

  /** Where the message stands in the group; `undefined` if that is not known, or it was stored anew. */
  #place (group: string, id: string): Place | undefined {
    return this.#isStoredAnew(id) ? undefined : this.#places.get(`${group} ${id}`)?.[0]
  }

  /**
   * Where the message stood that a raw connection got in a group, which was at `before`. One that was stored anew tells nothing unless it
   * may come from the log that the connection was in: in which of the others it was then need not be known.
   */
  #cameFrom (group: string, id: string, before: Place | undefined): Place | undefined {
    const places = this.#places.get(`${group} ${id}`) ?? []
    if (!this.#isStoredAnew(id)) return places[0]
    return places.find(({ epoch, offset }) => epoch === before?.epoch && offset > before.offset)
  }

  /** Messages to several groups are in the same order in each of them. */
  #assertSameOrder (): void {
    const pairs = new Map<string, Array<readonly [Place, Place, string]>>()
    for (const [id, { to }] of this.#sent) {
      for (const a of to) {
        for (const b of to) {
          const [inA, inB] = [this.#place(a, id), this.#place(b, id)]
          if (a >= b || inA === undefined || inB === undefined) continue
          const name = `${a} ${b} ${inA.epoch} ${inB.epoch}`
          const list = pairs.get(name)
          if (list === undefined) pairs.set(name, [[inA, inB, id]])
          else list.push([inA, inB, id])
        }
      }
    }
    for (const [name, list] of pairs) {
      list.sort(([a], [b]) => a.offset - b.offset)
      for (const [index, [, place, id]] of list.entries()) {
        const [, before, other] = list[index - 1] ?? []
        if (before !== undefined && before.offset > place.offset) {
          this.violate('reordered', `${other} and ${id} differ in their order in ${name}`)
        }
      }
    }
  }

  /** A member of several groups gets a message to them where it stands in each: live, nothing of another group comes between its copies. */
  #assertOnePlace ({ client, events }: Heard): void {
    const strictFrom = this.#inStepAt(events)
    if (strictFrom === undefined) return
    const latest = new Map<string, number>()
    const gotAt = new Map<string, number>()
    for (const [index, event] of events.entries()) {
      if (event.kind === 'message') gotAt.set(event.id, index)
      if (event.kind === 'position') {
        const id = this.#logs.get(event.group)?.get(event.place.epoch)?.[event.place.offset]?.id
        const sent = id === undefined ? undefined : this.#sent.get(id)
        const copy = id === undefined ? undefined : gotAt.get(id)
        const last = latest.get(event.group) ?? -1
        if (sent !== undefined && copy !== undefined && sent.at > strictFrom && last > copy) {
          this.violate('reordered', `${client} got ${id} before what comes before it in ${event.group}`)
        }
      }
      if (event.kind !== 'gap' && event.kind !== 'joined' && event.group !== undefined) latest.set(event.group, index)
    }
  }

  /** What came by the group without a log came in the order of the logs that it stands in, too. */
  #assertMixedOrder ({ client, framed, events }: Heard): void {
    const inOthers = events.some(event => event.kind === 'joined' && event.group !== volatile)
    if (!framed && inOthers) return
    const latest = new Map<string, { readonly id: string, readonly offset: number }>()
    for (const event of events) {
      if (event.kind !== 'message' || (framed && event.group !== volatile)) continue
      const { id } = event
      for (const group of this.#sent.get(id)?.to ?? []) {
        const place = this.#place(group, id)
        if (place === undefined) continue
        const log = `${group} ${place.epoch}`
        const before = latest.get(log)
        if (before !== undefined && before.offset > place.offset) {
          this.violate('reordered', `${client} got ${id} in ${volatile} after ${before.id}, which comes after it in ${log}`)
        }
        latest.set(log, { id, offset: place.offset })
      }
    }
  }

  /** When all groups of the connection were in step with their logs: each had given it a message that was sent after it joined. */
  #inStepAt (events: readonly Event[]): number | undefined {
    const joinedAt = new Map<string, number>()
    const inStep = new Set<string>()
    let at = 0
    for (const event of events) {
      if (event.kind === 'joined') {
        joinedAt.set(event.group, event.at)
        inStep.delete(event.group)
      } else if (event.kind === 'message' && event.group !== undefined && !inStep.has(event.group)) {
        if ((this.#sent.get(event.id)?.at ?? 0) < (joinedAt.get(event.group) ?? Infinity)) continue
        inStep.add(event.group)
        at = Math.max(at, event.at + catchUpMs)
      }
    }
    return inStep.size > 0 && inStep.size === joinedAt.size ? at : undefined
  }

  /** A raw connection got everything from its first message of each group to the last, in order, but for what it was told of. */
  #assertWhole ({ client, events, live }: Heard): void {
    const got = new Set<string>()
    for (const event of events) {
      if (event.kind !== 'message') continue
      if (got.has(event.id)) this.violate('doubled', `${client} got ${event.id} twice`)
      got.add(event.id)
    }
    for (const joined of events) {
      if (joined.kind !== 'joined') continue
      this.#assertWholeIn(joined.group, joined.whole ? joined.at : Infinity, client, events, got, live)
    }
  }

  #assertWholeIn (group: string, since: number, client: string, events: readonly Event[], got: ReadonlySet<string>, live: boolean): void {
    let before: Place | undefined
    // What comes before is of other groups that the connection joined sooner.
    const from = events.findIndex(event => event.kind === 'joined' && event.group === group)
    const joinedAt = events[from]?.at ?? 0
    const elsewhere = new Set(events.flatMap(event => event.kind === 'joined' && event.group !== group ? [event.group] : []))
    const isElsewhereToo = (id: string): boolean => this.#sent.get(id)?.to.some(other => elsewhere.has(other)) === true
    // Of a join that only its instance knew of, the first message that can have come by this group alone tells where the connection began.
    const begun = since === Infinity
      ? events.findIndex(event => event.kind === 'message' && this.#places.has(`${group} ${event.id}`) && !isElsewhereToo(event.id))
      : from
    const begins = begun === -1 ? events.length : begun
    const beginning = since === Infinity ? events[begun] : undefined
    const first = beginning?.kind === 'message' ? this.#place(group, beginning.id) : undefined
    /** The epochs of logs of the group that the connection was in before the present one. */
    const left = new Set<string>()
    /**
     * A message from before the connection began here, or of a log that is lost, may have come by another group of the connection, one that
     * its instance was behind in: it does not tell where the connection is in this group.
     */
    const isElsewhere = (id: string, { epoch, offset }: Place, index: number): boolean => {
      const isBefore = index < begins || (first !== undefined && epoch === first.epoch && offset < first.offset)
      const isOld = (this.#sent.get(id)?.at ?? 0) <= joinedAt || isBefore || left.has(epoch)
      return (isOld || isRepaired || this.#isStoredAnew(id)) && isElsewhereToo(id)
    }
    /** A gap was told just now: what comes after it comes group by group. */
    let isRepaired = false
    let gapAt = -Infinity
    /** A message that was sent before the join may be stored anew after it: the members of that time had it by then. */
    const isOwed = (id: string): boolean => this.#place(group, id) !== undefined || (this.#sent.get(id)?.at ?? 0) > joinedAt
    let gaps = events.filter(event => event.kind === 'gap' && event.group === group).length
    const everTold = gaps > 0
    let told = false
    let known = this.violations.length
    const trace = (index: number): void => {
      if (this.violations.length === known) return
      known = this.violations.length
      const around = events.slice(Math.max(0, index - 20), index + 4).map(event => this.#describe(event))
      this.traces.push([`${client} was told`, ...around].join('\n'))
    }
    for (const [index, event] of events.entries()) {
      if (index < from) continue
      if (event.kind === 'gap') gapAt = event.at
      isRepaired = event.at < gapAt + catchUpMs
      if (event.kind === 'gap' && event.group === group) {
        gaps--
        told = true
      }
      const place = event.kind === 'message' ? this.#cameFrom(group, event.id, before) : undefined
      if (event.kind !== 'message' || place === undefined || isElsewhere(event.id, place, index)) continue
      const what = `${client} got ${event.id} at ${group} ${key(place)} after ${key(before)}`
      if (before === undefined) {
        const isOwedFirst = (id: string): boolean => (this.#sent.get(id)?.at ?? 0) > since
        this.#assertMissed(group, place.epoch, 0, place.offset, isOwedFirst, got, gaps, `${what}, the first`)
      } else if (before.epoch !== place.epoch) {
        left.add(before.epoch)
        // All gaps of the group count that are told from the loss on: the route hears of them after what was on its way, if the connection
        // is still there.
        const stayed = live || (events.at(-1)?.at ?? 0) > event.at + catchUpMs
        if (stayed && !everTold) this.violate('lostSilently', what)
      } else if (place.offset <= before.offset) {
        // What came before the gap may have been stored anew, where nobody who could tell was given it the first time.
        if (!told) this.violate('reordered', what)
      } else if (!told) {
        this.#assertMissed(group, place.epoch, before.offset, place.offset, isOwed, got, gaps, what)
      }
      before = place
      told = false
      trace(index)
    }
    const end = this.end(group)
    if (!live || end === undefined || before === undefined || before.epoch !== end.epoch) return
    this.#assertMissed(group, end.epoch, before.offset, end.offset + 1, isOwed, got, gaps, `${client} ends at ${key(before)}`)
    trace(events.length - 1)
  }

  #describe (event: Event): string {
    const at = Math.round(event.at)
    if (event.kind === 'joined') return `${at} joined ${event.group}${event.whole ? '' : ', of which its instance alone knew'}`
    if (event.kind !== 'message') return `${at} ${event.kind} ${event.group}`
    const places = (this.#sent.get(event.id)?.to ?? []).map(group => {
      const known = this.#places.get(`${group} ${event.id}`) ?? []
      return `${group} ${known.map(({ epoch, offset }) => `${epoch.slice(0, 4)}:${offset}`).join(' and ') || '?'}`
    })
    return `${at} ${event.id} ${places.join(', ')}`
  }

  /** Everything between two offsets was got, or a gap is told later. */
  #assertMissed (
    group: string, epoch: string, from: number, to: number, isOwed: (id: string) => boolean, got: ReadonlySet<string>, gaps: number,
    what: string
  ): void {
    const entries = this.#logs.get(group)?.get(epoch)
    for (let offset = from + 1; offset < to; offset++) {
      const id = entries?.[offset]?.id
      if (id === undefined || got.has(id) || !isOwed(id) || gaps > 0) continue
      this.violate(
        'lostSilently', `${what}, and never ${id} at ${group} ${offset}, which was sent at ${Math.round(this.#sent.get(id)?.at ?? 0)}`
      )
    }
  }
}

/** One frame in a few words. */
function describe (frame: ServerFrame): string {
  const { type, group, position, data, reason, recovered } = frame as Partial<Record<string, unknown>>
  const id = typeof data === 'string' ? (JSON.parse(data) as { id: string }).id : ''
  const parts = [type, group, typeof position === 'string' ? key(toPlace(position)) : '', id, reason, recovered]
  return parts.filter(part => part !== undefined && part !== '').join(' ')
}

function key (place: Place | undefined): string {
  return place === undefined ? 'nowhere' : `${place.epoch || 'the beginning'} ${place.offset}`
}
