import type { Counted, Event, Report } from './reporter.ts'

/** An instance that did not answer this many times in a row is silent. */
const missesUntilSilent = 2
/** How long a silent instance stays in the list, so that people see which one is gone. */
const rememberedMs = 60_000
export const instancesPerPage = 10
const shownNames = 5
const shownProblems = 20
const shownBusiest = 10
const shownEvents = 20
const shownVersions = 5
/** Reports are somewhat old when they come: clocks that seem to differ by less than this may be the same. */
const sameClockMs = 5_000

/** What the list of instances can be sorted by: names ascending, numbers descending. */
export const orders = ['name', 'connections', 'lagP99', 'load', 'memory', 'slow'] as const

/** Which part of the list of instances a page asks for. */
export interface Question {
  /** Shows only instances that have this text in their name, id, version or state. */
  readonly find: string
  readonly order: (typeof orders)[number]
  /** From 0 on. */
  readonly page: number
}

export const firstPage: Question = { find: '', order: 'name', page: 0 }

type State = Report['status'] | 'silent'

interface Seen {
  readonly report: Report
  readonly seenAt: number
  /** How many rounds the instance has not answered since then. */
  readonly missed: number
}

const inRows = [
  'id', 'label', 'version', 'node', 'backplane', 'connections', 'groups', 'slow', 'lagP99', 'load', 'memory', 'redis'
] as const satisfies ReadonlyArray<keyof Report>

/** One row of the list of instances. */
interface Row extends Pick<Report, (typeof inRows)[number]> {
  readonly state: State
  /** The first of its problems, if it has one. */
  readonly problem: string | null
  /** For how long it has been in this state; if it is silent, how long ago it last answered (milliseconds). */
  readonly stateMs: number
  /** For how long it has been running (milliseconds). */
  readonly upMs: number
}

/** What all pages are shown, apart from the list of instances. */
interface Summary {
  /** How many instances there are, with those that never answered. */
  readonly instances: number
  readonly well: number
  readonly versions: Counted
  readonly totals: Pick<Report, 'connections' | 'receivedPerSecond' | 'sentPerSecond' | 'deliveryP99' | 'onMessageP99' | 'refusedPerSecond'>
  readonly problems: readonly string[]
  readonly busiest: Counted
  readonly users: Counted
  readonly events: readonly Event[]
}

/** Sums up the reports of all instances for a page. The summary has about the same size however many instances there are. */
export class Overview {
  readonly #seen = new Map<string, Seen>()
  readonly #now: () => number
  /** How many instances live but never answered. */
  #unknown = 0
  /** Whether the others could be asked in the last round. */
  #asked = true

  constructor (now: () => number = Date.now) {
    this.#now = now
  }

  /** Takes the answers of one round; `missing`: how many instances gave none, `undefined` if no others could be asked. */
  take (replies: readonly unknown[], missing: number | undefined): void {
    const now = this.#now()
    const answered = new Map(replies.filter(isReport).map(report => [report.id, report]))
    let silent = 0
    for (const [id, { seenAt, missed, report }] of this.#seen) {
      if (answered.has(id)) continue
      const isSilent = missed + 1 >= missesUntilSilent
      // An instance that said it was closing is not missed.
      if (isSilent && (report.status === 'closing' || (missing !== undefined && now - seenAt > rememberedMs))) {
        this.#seen.delete(id)
        continue
      }
      this.#seen.set(id, { report, seenAt, missed: missed + 1 })
      silent++
    }
    for (const [id, report] of answered) this.#seen.set(id, { report, seenAt: now, missed: 0 })
    this.#asked = missing !== undefined
    this.#unknown = Math.max(0, (missing ?? 0) - silent)
  }

  summary (): Summary {
    const all = [...this.#seen.values()]
    const live = all.filter(one => !isSilent(one)).map(({ report }) => report)
    const sum = (field: 'connections' | 'receivedPerSecond' | 'sentPerSecond' | 'refusedPerSecond'): number =>
      live.reduce((total, one) => total + one[field], 0)
    const worst = (field: 'deliveryP99' | 'onMessageP99'): number | null =>
      live.reduce<number | null>((most, one) => one[field] === null ? most : Math.max(most ?? 0, one[field]), null)
    return {
      instances: all.length + this.#unknown,
      well: all.filter(isWell).length,
      versions: most(live.map(({ version }): Counted => [[version, 1]]), shownVersions),
      totals: {
        connections: sum('connections'),
        receivedPerSecond: sum('receivedPerSecond'),
        sentPerSecond: sum('sentPerSecond'),
        deliveryP99: worst('deliveryP99'),
        onMessageP99: worst('onMessageP99'),
        refusedPerSecond: sum('refusedPerSecond')
      },
      problems: [
        ...problemsOf(all, this.#unknown),
        ...this.#asked ? [] : ['the other instances cannot be asked now: rates and counts are those of this one']
      ],
      busiest: most(live.map(({ busiest }) => busiest), shownBusiest),
      users: most(live.map(({ users }) => users), shownBusiest),
      // Those of silent instances, too: they may tell what came before the silence.
      events: all.flatMap(eventsOf).sort((a, b) => b.at - a.at).slice(0, shownEvents)
    }
  }

  /** The rows of one page of the list: instances with problems come first. */
  rows ({ find, order, page }: Question): { readonly rows: readonly Row[], readonly found: number, readonly page: number } {
    const sought = find.toLowerCase()
    const found = [...this.#seen.values()].filter(one => sought === '' || textOf(one).includes(sought))
    found.sort((a, b) => Number(isWell(a)) - Number(isWell(b)) || inOrder(a.report, b.report, order))
    const last = Math.max(0, Math.ceil(found.length / instancesPerPage) - 1)
    const at = Math.min(page, last)
    const rows = found.slice(at * instancesPerPage, (at + 1) * instancesPerPage).map(one => this.#row(one))
    return { rows, found: found.length, page: at }
  }

  #row (one: Seen): Row {
    const { report, seenAt } = one
    const told = Object.fromEntries(inRows.map(name => [name, report[name]])) as Pick<Report, (typeof inRows)[number]>
    const silentMs = this.#now() - seenAt
    // Clocks differ: the times of a report are compared with its own clock alone. Older versions did not tell it.
    const ageOf = (at: number): number => (report.now ?? seenAt) - at + silentMs
    return {
      ...told,
      state: stateOf(one),
      problem: report.problems[0] ?? null,
      stateMs: isSilent(one) ? silentMs : ageOf(report.since),
      upMs: ageOf(report.startedAt)
    }
  }
}

const isSilent = ({ missed }: Seen): boolean => missed >= missesUntilSilent
const stateOf = (one: Seen): State => isSilent(one) ? 'silent' : one.report.status
const isWell = (one: Seen): boolean => stateOf(one) === 'up' && one.report.problems.length === 0
const nameOf = ({ label, id }: Report): string => label ?? id
const textOf = (one: Seen): string => [one.report.label, one.report.id, one.report.version, stateOf(one)].join('\n').toLowerCase()

/** With their times on the clock of this instance. */
function eventsOf ({ report: { now, events }, seenAt }: Seen): readonly Event[] {
  const behindMs = seenAt - (now ?? seenAt)
  return Math.abs(behindMs) < sameClockMs ? events : events.map(event => ({ ...event, at: event.at + behindMs }))
}

function inOrder (a: Report, b: Report, order: Question['order']): number {
  const byName = `${a.label ?? ''} ${a.id}` < `${b.label ?? ''} ${b.id}` ? -1 : 1
  return order === 'name' ? byName : b[order] - a[order] || byName
}

/** One sentence for each problem, however many instances have it. */
function problemsOf (all: readonly Seen[], unknown: number): string[] {
  const named = (instances: readonly Seen[]): string =>
    instances.slice(0, shownNames).map(({ report }) => nameOf(report)).sort().join(', ') + (instances.length > shownNames ? ' …' : '')
  const [silent, leaving] = [all.filter(isSilent), all.filter(one => stateOf(one) === 'closing')]
  const wrong = new Map<string, Seen[]>()
  for (const one of all) {
    if (!isSilent(one)) for (const problem of one.report.problems) wrong.set(problem, [...wrong.get(problem) ?? [], one])
  }
  const told = [...wrong].sort(([, a], [, b]) => b.length - a.length)
    .map(([problem, instances]) => `${problem} · on ${instances.length} of ${all.length + unknown}: ${named(instances)}`)
  const isOrAre = (instances: readonly Seen[], one: string, several: string): string =>
    `${named(instances)} ${instances.length === 1 ? one : `(${instances.length}) ${several}`}`
  return [
    // Problems that instances report come first: they may explain why others are silent.
    ...told.slice(0, shownProblems),
    ...told.length > shownProblems ? [`and ${told.length - shownProblems} more`] : [],
    ...silent.length === 0 ? [] : [`${isOrAre(silent, 'is', 'are')} silent: hung, stopped, or cut off from Redis`],
    ...unknown === 0 ? [] : [`no report from ${unknown}: hung before this page was opened, without a dashboard, or with another key`],
    ...leaving.length === 0 ? [] : [`${isOrAre(leaving, 'takes', 'take')} no new connections: drained, or closing`]
  ]
}

/** Adds up what each instance counted, by name; the most first. */
function most (counts: readonly Counted[], limit: number): Counted {
  const sums = new Map<string, number>()
  for (const one of counts) for (const [name, count] of one) sums.set(name, (sums.get(name) ?? 0) + count)
  return [...sums].sort(([, a], [, b]) => b - a).slice(0, limit)
}

/** Whether this version can show the answer: an instance of another version may answer something else. */
function isReport (value: unknown): value is Report {
  const { id, version, problems, busiest, users, events } = (value ?? {}) as Partial<Report>
  return typeof id === 'string' && typeof version === 'string' && [problems, busiest, users, events].every(Array.isArray)
}
