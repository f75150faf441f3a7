import t from 'tap'
import { compareConfigurations } from '../../lib/operations/dashboard/configurations.ts'
import { firstPage, Overview } from '../../lib/operations/dashboard/overview.ts'
import type { Report } from '../../lib/operations/dashboard/reporter.ts'
import type { Description } from '../../plugin.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'

noUnhandled(t)

/** A report as large as one can be. */
function report (at: number, changes: Partial<Report> = {}): Report {
  const name = (kind: string, n: number): readonly [string, number] => [`${kind}-${at}-${n}`.padEnd(255, 'x'), at]
  const ten = Array.from({ length: 10 }, (_, n) => n)
  return {
    id: `id-${at}`,
    label: `eu-${String(at).padStart(4, '0')}`,
    version: '1.2.3',
    node: 'v20.0.0',
    platform: 'linux',
    startedAt: 0,
    status: 'up',
    since: 0,
    backplane: 'redis',
    problems: [],
    connections: at,
    groups: 1,
    slow: 0,
    memory: 1,
    load: 0.5,
    lagP99: at / 1_000,
    receivedPerSecond: 1,
    sentPerSecond: 2,
    refusedPerSecond: 0,
    deliveryP99: at === 7 ? null : at / 1_000,
    onMessageP99: null,
    redis: { up: true, reconnects: 0, timeouts: 0, leaseAgeMs: 1 },
    busiest: [['lobby', 3], ...ten.map(n => name('group', n))],
    users: ten.map(n => name('user', n)),
    events: ten.map(n => ({ at: at * 100 + n, text: `event ${n} of ${at} `.padEnd(200, 'x'), times: 1 })),
    ...changes
  }
}

const thousand = Array.from({ length: 1_000 }, (_, at) => report(at))

t.test('what a page gets of a thousand large instances is small, and can be paged through, searched and put in order', async (t) => {
  const overview = new Overview()
  overview.take(thousand, 0)
  const summary = overview.summary()
  t.match(summary, { instances: 1_000, well: 1_000, problems: [], versions: [['1.2.3', 1_000]] })
  t.match(summary.totals, { connections: 499_500, receivedPerSecond: 1_000, sentPerSecond: 2_000, deliveryP99: 0.999, onMessageP99: null })
  t.strictSame(summary.busiest[0], ['lobby', 3_000], 'what several have is added up')
  t.equal(summary.busiest.length, 10)
  t.equal(summary.events[0]?.at, 99_909, 'the latest first')
  const list = overview.rows(firstPage)
  t.equal(list.found, 1_000)
  const bytes = JSON.stringify({ summary, list }).length
  t.ok(bytes < 24_000, `${bytes} bytes`)

  const labels = (question: object): Array<string | null> => overview.rows({ ...firstPage, ...question }).rows.map(({ label }) => label)
  t.strictSame(labels({}).slice(0, 2), ['eu-0000', 'eu-0001'])
  t.strictSame(labels({ page: 2 })[0], 'eu-0020')
  t.equal(overview.rows({ ...firstPage, page: 1e9 }).page, 99, 'there are no pages beyond the last one')
  t.strictSame(labels({ find: 'EU-077' }).length, 10)
  t.strictSame(labels({ order: 'connections' })[0], 'eu-0999')
  t.strictSame(labels({ find: 'nowhere' }), [])
})

t.test('instances that need a look come first, and many that have the same trouble are one sentence', async (t) => {
  const overview = new Overview()
  const problem = 'Redis does not answer'
  overview.take(thousand.map((one, at) => at > 400 ? { ...one, status: 'down' as const, problems: [problem] } : one), 3)
  const { instances, well, problems } = overview.summary()
  t.strictSame({ instances, well }, { instances: 1_003, well: 401 })
  t.equal(problems.length, 2)
  t.match(problems[0], /^Redis does not answer · on 599 of 1003: eu-0401, .* …$/)
  t.match(problems[1], /^no report from 3: /)
  t.match(overview.rows(firstPage).rows[0], { label: 'eu-0401', state: 'down', problem })
  t.equal(overview.rows({ ...firstPage, find: 'down' }).found, 599, 'a state can be searched for')
  t.match(new Overview().summary(), { instances: 0, problems: [] })
})

t.test('who does not answer twice is silent for a minute; who closed is gone', async (t) => {
  let now = 1_000_000
  const overview = new Overview(() => now)
  const states = (): string[] => overview.rows(firstPage).rows.map(({ id, state }) => `${id} ${state}`)
  overview.take([report(1), report(2), report(3, { status: 'closing' })], 0)
  t.match(overview.summary().problems, ['eu-0003 takes no new connections: drained, or closing'])
  now += 2_000
  overview.take([report(1)], 2)
  t.strictSame(states(), ['id-3 closing', 'id-1 up', 'id-2 up'], 'one miss is none')
  now += 2_000
  overview.take([report(1)], 1)
  t.strictSame(states(), ['id-2 silent', 'id-1 up'])
  t.equal(overview.rows(firstPage).rows[0]?.stateMs, 4_000)
  t.strictSame(overview.summary().problems, ['eu-0002 is silent: hung, stopped, or cut off from Redis'])
  t.equal(overview.summary().totals.connections, 1, 'what it had does not count')
  t.match(overview.summary().events[0]?.text, /^event 9 of 2 /, 'what it told before is still shown')
  now += 60_000
  overview.take([report(1)], 1)
  t.strictSame(states(), ['id-1 up'])
  t.match(overview.summary().problems, [/^no report from 1: /], 'it takes messages still')
  overview.take([report(1), report(2)], 0)
  t.strictSame(states(), ['id-1 up', 'id-2 up'])
})

t.test('while others cannot be asked they stay on the page, and it says so', async (t) => {
  let now = 1_000
  const overview = new Overview(() => now)
  overview.take([report(1), report(2)], 0)
  for (let round = 0; round < 50; round++) {
    now += 2_000
    overview.take([report(1, { status: 'down', problems: ['Redis does not answer'] })], undefined)
  }
  const { instances, well, problems } = overview.summary()
  t.match({ instances, well }, { instances: 2, well: 0 })
  t.match(problems, [/^Redis does not answer/, /^eu-0002 is silent/, /^the other instances cannot be asked now/])
  now += 2_000
  overview.take([report(1), report(2)], 0)
  t.match(overview.summary(), { instances: 2, well: 2, problems: [] })
})

t.test('clocks of instances that differ make nobody younger or older', async (t) => {
  let now = 1_000_000
  const overview = new Overview(() => now)
  const changes = { startedAt: -50_000, since: -20_000 }
  const ahead = 90_000
  overview.take([
    report(1, { now: 0, ...changes }), report(2, { now: ahead, startedAt: ahead - 50_000, since: ahead - 20_000 }),
    report(3, { startedAt: now - 50_000, since: now - 20_000 })
  ], 0)
  now += 3_000
  t.strictSame(overview.rows(firstPage).rows.map(({ stateMs, upMs }) => [stateMs, upMs]), Array.from({ length: 3 }, () => [23_000, 53_000]))
})

t.test('events of instances whose clocks differ are told in their order, and as those of one clock when theirs are close', async (t) => {
  const now = 1_000_000
  const overview = new Overview(() => now)
  const event = (text: string, at: number): Report['events'] => [{ at, text, times: 1 }]
  overview.take([
    report(1, { now: now - 1_500, events: event('latest', now - 2_000) }),
    report(2, { now: now + 90_000, events: event('5 s ago', now + 85_000) }),
    report(3, { now: now - 90_000, events: event('4 s ago', now - 94_000) }),
    report(4, { events: event('of an older version', now - 6_000) })
  ], 0)
  t.strictSame(overview.summary().events.map(({ at, text }) => [text, at - now]), [
    ['latest', -2_000], ['4 s ago', -4_000], ['5 s ago', -5_000], ['of an older version', -6_000]
  ])
})

t.test('what another version answers is passed over', async (t) => {
  const overview = new Overview()
  overview.take([report(1), null, 'x', {}, { id: 'id-2' }, { ...report(3), events: undefined }], 0)
  t.strictSame(overview.rows(firstPage).rows.map(({ id }) => id), ['id-1'])
})

t.test('of a thousand configurations one is shown, and how the others differ', async (t) => {
  const described = (at: number, perSecond: number): Description => ({
    version: '1.2.3',
    node: 'v20.0.0',
    platform: 'linux',
    startedAt: at,
    health: { status: 'up', since: at, ready: true, instanceId: `id-${at}`, backplane: 'redis', problems: [] },
    options: { instanceLabel: at === 5 ? null : `eu-${at}`, leaseMs: 15_000, limits: { messages: { perSecond } }, rooms: ['/a'] }
  })
  const same = Array.from({ length: 1_000 }, (_, at) => described(at, 10))
  t.strictSame(compareConfigurations([]), { most: null, others: [], more: 0 })
  t.match(compareConfigurations(same), { most: { instances: 1_000, configuration: { options: { leaseMs: 15_000 } } }, others: [], more: 0 })
  const { others } = compareConfigurations([...same.slice(6), described(5, 99)])
  t.strictSame(others, [{ instances: 1, names: ['id-5'], differs: { 'options.limits.messages.perSecond': 99 } }])
  const reversed = same.slice(1).map(({ options, ...more }) => (
    { ...more, options: Object.fromEntries(Object.entries(options).reverse()) }
  ))
  t.match(compareConfigurations([...same.slice(0, 1), ...reversed]), { most: { instances: 1_000 }, others: [] }, 'in another order')
  const many = compareConfigurations(same.map((_, at) => described(at, at)))
  t.strictSame([many.others.length, many.more], [10, 989])
})
