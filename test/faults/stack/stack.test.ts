// Everything goes wrong around the whole default stack, in an order drawn from a seed, while an oracle watches what clients are told:
// nothing is lost without a word, doubled or put out of order, in one group, across groups with a log and without one, and in streams of
// tokens, and presence is right in the end.
//
//   CHAOS_SEED=… npx tap run test/faults/stack/stack.test.ts     other faults than those of seed 1
//   node scripts/chaos.mjs --messages 200000                     the long form
//   node scripts/chaos.mjs --store sentinel                      on servers that sentinels watch over
//   node scripts/chaos.mjs --store cluster                       on a Redis Cluster
import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { until } from '../../helpers/until.ts'
import { Random } from '../chaos/random.ts'
import { Crowd } from './crowd.ts'
import { faults as commonFaults, light, type Stage } from './faults.ts'
import { groups, logged, store } from './groups.ts'
import { Stack } from './stack.ts'

const seed = Number(process.env.CHAOS_SEED ?? 1)
const messages = Number(process.env.CHAOS_MESSAGES ?? 3_000)
const limitMs = Number(process.env.CHAOS_SECONDS ?? 120) * 1_000
const rate = messages > 50_000 ? 300 : 150
const detail = process.env.CHAOS_VERBOSE !== undefined

noUnhandled(t)
t.setTimeout(limitMs + 180_000)
t.comment(`CHAOS_STORE=${store} CHAOS_SEED=${seed} for ${messages} messages`)

const happened: Record<string, number> = {}
/** Faults that could not be brought about, or did not come to their end. */
const failed: string[] = []
const random = new Random(seed)
const stack = new Stack(t)
const crowd = new Crowd(() => stack.ports, new Random(seed + 1))
const { oracle } = crowd
t.teardown(async () => await crowd.close())
const stage: Stage = { stack, crowd, random }

async function strike (name: string): Promise<void> {
  happened[name] = (happened[name] ?? 0) + 1
  const [startedAt, known] = [performance.now(), oracle.violations.length]
  await faults[name]?.(stage).catch((error: unknown) => failed.push(`${name}: ${String(error)}`))
  if (detail) t.comment(`${name}: ${Math.round(performance.now() - startedAt)} ms, ${oracle.totals.published} published`)
  for (const violation of oracle.violations.slice(known, known + 3)) t.comment(`${name}: ${violation}`)
  if (detail) for (const trace of oracle.traces.splice(0)) t.comment(trace)
}

await stack.start(3)
const faults = { ...commonFaults, ...stack.store.faults }
crowd.start()
await until(() => crowd.settled, { timeoutMs: 30_000, what: 'all clients to be in their groups' })
crowd.publish(rate)
await until(() => logged.every(group => oracle.end(group) !== undefined), { what: 'all groups to be in use' })

const startedAt = performance.now()
let deck: string[] = []
do {
  if (deck.length === 0) deck = random.shuffle(Object.keys(faults))
  const name = deck.shift() ?? ''
  const second = random.next() < 0.3 ? random.pick(light) : undefined
  await Promise.all([strike(name), ...second === undefined ? [] : [sleep(random.between(0, 300)).then(async () => await strike(second))]])
  await sleep(random.between(0, 500))
} while ((deck.length > 0 || oracle.totals.published < messages) && performance.now() - startedAt < limitMs)

await until(() => crowd.settled, { timeoutMs: 60_000, what: 'all clients to be back in their groups' })
crowd.publish(0)
await until(() => crowd.idle, { timeoutMs: 60_000, what: 'all messages to have their answers' })
// The last message of each group says to the oracle where its log ends, whatever was acknowledged.
crowd.publish(rate)
const calmAt = performance.now()
await sleep(500)
let unreached: string[] = []
await until(() => {
  unreached = crowd.unreachedSince(calmAt)
  return unreached.length === 0
}, { timeoutMs: 30_000 }).catch(() => {})
crowd.publish(0)
await until(() => crowd.idle && crowd.behind.length === 0, { timeoutMs: 30_000, what: 'everybody to be at the end of the logs' })
  .catch(() => t.comment(`behind: ${crowd.behind.join()}`))

// Those of a producer that died end half a minute later.
const reading = new Set(crowd.reading)
let unread: string[] = []
await until(() => {
  unread = crowd.reading.filter(name => reading.has(name))
  return unread.length === 0
}, { timeoutMs: 60_000, everyMs: 100 }).catch(() => {})

/** Where what instances and clients say of the members differs from who is there. */
async function strangers (): Promise<string[]> {
  const truth = crowd.members
  const found: string[] = []
  const compare = (who: string, group: string, names: readonly string[], expected: readonly string[] = []): void => {
    const lacking = expected.filter(name => !names.includes(name)).map(name => `lacks ${name}`)
    const wrong = [...lacking, ...names.filter(name => !expected.includes(name)).map(name => `has ${name}`)]
    if (wrong.length === 0 && names.length !== expected.length) wrong.push(`sees ${names.length}, not ${expected.length}`)
    if (wrong.length > 0) found.push(`${who} in ${group}: ${wrong.join()}`)
  }
  for (const [index, instance] of stack.instances.entries()) {
    for (const { group, count, members } of await stack.view(instance, groups)) {
      compare(`instance ${index}`, group, members, truth.get(group))
      if (count !== truth.get(group)?.length) found.push(`instance ${index} counts ${count} in ${group}, not ${truth.get(group)?.length}`)
    }
  }
  for (const { client, session } of crowd.framed) {
    for (const group of session.joined) {
      compare(session.name, group, client.members(group).map(({ userId }) => userId ?? ''), crowd.people.get(group))
    }
  }
  return found
}
let wrong: string[] = []
// A lease, a beat, and what clients that were away may take to come back.
await until(async () => {
  wrong = await strangers()
  // The last to close forgets those that were killed, but only once they were cleaned up after.
  return wrong.length === 0 && await stack.store.settled(stack.instances.length)
}, { timeoutMs: 60_000, everyMs: 250 }).catch(() => {})

crowd.seal()
oracle.finish(crowd.framed.map(({ session }) => session))
await crowd.close()
await Promise.all(stack.instances.map(async instance => await stack.stop(instance)))
await until(async () => (await stack.store.channels()).length === 0).catch(() => {})
const leftovers = await stack.store.leftovers()

// All at the end: tap takes a test without asserts under way for over.
t.strictSame(failed, [], 'all faults were brought about, and came to their ends')
t.same(wrong, [], 'presence is right in the end, for instances and for clients')
t.strictSame(unread, [], 'all streams come to their ends')
t.strictSame(unreached, [], 'everybody gets what a group without a log is sent')
t.strictSame(leftovers, [], 'no key and no channel is left')
t.strictSame(stack.faults, [], 'no instance had anything unhandled')

const { totals, gaps, violations } = oracle
for (const trace of oracle.traces.slice(0, 10)) t.comment(trace)
const seconds = Math.round((performance.now() - startedAt) / 1_000)
t.comment(`CHAOS_SEED=${seed}: ${JSON.stringify({ seconds, ...totals, gaps, faults: happened }, undefined, 2)}`)
t.ok(totals.published >= (messages > 50_000 ? messages : 1_000) && totals.stored > totals.published / 4, 'enough was sent, and stored')
t.ok(totals.mixed > totals.published / 20, 'many messages went to groups with a log and to the one without')
t.ok(totals.streamsRead > 20, 'streams were read to their ends')
t.same(violations.slice(0, 20), [], 'nothing is wrong')
for (const kind of ['lostSilently', 'doubled', 'reordered', 'falseGaps', 'refusedButStored'] as const) t.equal(totals[kind], 0, kind)
for (const name of Object.keys(faults)) t.ok(happened[name], `${name} happened`)
