// Everything goes wrong, in an order drawn from a seed, while an oracle watches that nothing is lost without a word, doubled or put out of
// order.
//
//   CHAOS_SEED=… npx tap run test/faults/chaos/chaos.test.ts     other faults than those of seed 1
//   node scripts/chaos.mjs --part log --messages 200000             the long form
import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { until } from '../../helpers/until.ts'
import { Cluster, groups } from './cluster.ts'
import { faults, light, type Stage } from './faults.ts'
import { Oracle } from './oracle.ts'
import { Random } from './random.ts'

const seed = Number(process.env.CHAOS_SEED ?? 1)
const messages = Number(process.env.CHAOS_MESSAGES ?? 20_000)
const limitMs = Number(process.env.CHAOS_SECONDS ?? 90) * 1_000
const rate = messages > 50_000 ? 2_500 : 1_200
const detail = process.env.CHAOS_VERBOSE !== undefined

noUnhandled(t)
t.setTimeout(limitMs + 180_000)
t.comment(`CHAOS_SEED=${seed} for ${messages} messages`)

const happened: Record<string, number> = {}
const oracle = new Oracle(group => groups[group]?.keep ?? 0)
const cluster = new Cluster(t, oracle)
const random = new Random(seed)
const stage: Stage = { cluster, oracle, random }

async function strike (name: string): Promise<void> {
  happened[name] = (happened[name] ?? 0) + 1
  const startedAt = performance.now()
  const violations = oracle.violations.length
  await faults[name]?.(stage)
  const healedAt = performance.now()
  // Every loss of data is told of before the next one, so that they can be counted.
  await until(() => oracle.untold(cluster.lives).length === 0, { timeoutMs: 60_000, what: 'all to tell of the lost data' }).catch(() => {
    oracle.violate(
      'lostSilently', `${name}: not told of a loss of data: ${oracle.untold(cluster.lives).join()}`, oracle.untold(cluster.lives).length
    )
  })
  await cluster.caughtUp()
  if (detail) {
    const [lastedMs, healingMs] = [healedAt - startedAt, performance.now() - healedAt].map(Math.round)
    t.comment(`${name}: lasted ${lastedMs} ms, healed after ${healingMs} ms, ${oracle.totals.published} published`)
  }
  for (const violation of oracle.violations.slice(violations, violations + 3)) t.comment(`after ${name}: ${violation}`)
}

await cluster.start(3, seed)
cluster.publish(rate)
await until(() => cluster.lives.every(life => groups.every((_, group) => (oracle.last(life, group)?.offset ?? 0) > 0)), {
  timeoutMs: 15_000, what: 'all groups to be in use'
})

const startedAt = performance.now()
let deck: string[] = []
const round = (): string[] => random.shuffle(Object.keys(faults))
do {
  if (deck.length === 0) deck = round()
  const name = deck.shift() ?? ''
  const second = random.next() < 0.3 ? random.pick(light) : undefined
  if (second !== undefined && name !== second) {
    happened[second] = (happened[second] ?? 0) + 1
    await Promise.all([strike(name), sleep(random.between(0, 300)).then(async () => await faults[second]?.(stage))])
  } else {
    await strike(name)
  }
  await sleep(random.between(0, 300))
} while ((deck.length > 0 || oracle.totals.published < messages) && performance.now() - startedAt < limitMs)
await until(() => oracle.totals.published >= messages, { timeoutMs: 30_000, what: `${messages} messages` })

await cluster.caughtUp()
await cluster.pause()
await cluster.caughtUp()
oracle.finish(cluster.lives)
await cluster.stop()

const { totals, gaps, violations } = oracle
const seconds = Math.round((performance.now() - startedAt) / 1_000)
t.comment(`CHAOS_SEED=${seed}: ${JSON.stringify({ seconds, ...totals, gaps, faults: happened }, undefined, 2)}`)
t.ok(totals.published >= messages, 'as many messages as wanted were stored')
t.same(violations.slice(0, 20), [], 'nothing is wrong')
for (const wrong of ['lostSilently', 'doubled', 'reordered', 'falseGaps', 'refusedButStored'] as const) t.equal(totals[wrong], 0, wrong)
for (const name of Object.keys(faults)) t.ok(happened[name], `${name} happened`)
