// Failovers by real sentinels: every instance is back, and nothing that was acknowledged is lost without a word.
//
//   SENTINEL_ROUNDS=20 npx tap run test/faults/sentinel.test.ts     each of them twenty times
import t, { type Test } from 'tap'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RedisSource } from '../../lib/backplane/redis/link/source.ts'
import { freePort } from '../helpers/ports.ts'
import type { TestRedis } from '../helpers/redis.ts'
import { startSentinel, startSentinels, type SentinelSet } from '../helpers/sentinels.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'
import { startBackplane, type TestInstance } from './log-rig.ts'

const rounds = Number(process.env.SENTINEL_ROUNDS ?? 1)
const backMs = 30_000

t.setTimeout(rounds * 300_000)

const instances = async (t: Test, redis: RedisSource, count = 3): Promise<TestInstance[]> => {
  return await Promise.all(Array.from({ length: count }, async () => await startBackplane(t, redis)))
}

const up = async (all: readonly TestInstance[]): Promise<void> => {
  await until(() => all.every(({ backplane }) => backplane.state === 'up'), {
    timeoutMs: backMs, what: 'all instances to be up'
  }).catch((error: unknown) => {
    throw new Error(`not up: ${JSON.stringify(all.map(({ backplane }) => backplane.problems))}`, { cause: error })
  })
}

/** Messages go on while `fault` happens, until all instances are back on the new master. Then each of them has all, or told of the loss. */
async function survives (t: Test, set: SentinelSet, all: readonly TestInstance[], fault: () => Promise<void>): Promise<void> {
  const before = await set.master()
  const [first] = all
  for (const { local } of all) {
    local.events.length = 0
    local.received.length = 0
    local.gaps.length = 0
  }
  const acknowledged: string[] = []
  const publishing = new AbortController()
  const done = (async () => {
    for (let n = 0; !publishing.signal.aborted; n++) {
      const text = `${performance.now()} ${n}`
      const [offset] = await first?.append([text]) ?? []
      if (typeof offset === 'number') acknowledged.push(text)
      await sleep(10)
    }
  })()
  await until(() => acknowledged.length > 20)
  await fault()
  await until(async () => await set.master().then(now => now !== before, () => false), {
    timeoutMs: backMs, everyMs: 50, what: 'another master'
  })
  await up(all)
  const before2 = acknowledged.length
  await until(() => acknowledged.length > before2 + 20, { timeoutMs: backMs, what: 'appends to the new master' })
  publishing.abort()
  await done
  const last = acknowledged.at(-1) ?? ''
  for (const [index, { local, backplane }] of all.entries()) {
    await until(() => local.events.includes(last), { timeoutMs: backMs, what: `instance ${index} to have the last message` })
    const texts = local.received.map(({ payload }) => payload.toString())
    const missing = acknowledged.filter(text => !texts.includes(text))
    if (missing.length > 0) t.equal(local.gaps.length, 1, `instance ${index} lacks ${missing.length} messages and told so once`)
    else t.ok(local.gaps.length <= 1, 'no more than one gap')
    t.equal(new Set(texts).size, texts.length, 'nothing twice')
    t.equal(backplane.state, 'up')
  }
}

async function repeated (t: Test, fault: (set: SentinelSet, master: TestRedis) => Promise<() => Promise<void>>): Promise<void> {
  const set = await startSentinels(t)
  const all = await instances(t, set.options)
  for (let round = 0; round < rounds; round++) {
    const master = await set.master()
    let heal: (() => Promise<void>) | undefined
    await survives(t, set, all, async () => { heal = await fault(set, master) })
    await heal?.()
    if (round < rounds - 1) await set.settled()
    await up(all)
  }
}

/** For faults that leave servers behind: each round begins with new ones. */
function anew (name: string, round: (t: Test) => Promise<void>): void {
  t.test(name, async t => {
    for (let n = 1; n <= rounds; n++) await t.test(`round ${n}`, round)
  })
}

t.test('the master dies', async t => {
  await repeated(t, async (set, master) => {
    await master.kill()
    return async () => await set.revive(master)
  })
})

t.test('the master hangs, and wakes as a replica', async t => {
  await repeated(t, async (_, master) => {
    master.stop()
    return async () => master.cont()
  })
})

t.test('an operator asks for a failover', async t => {
  await repeated(t, async ({ sentinels: [sentinel] }) => {
    await sentinel?.admin.call('SENTINEL', 'failover', 'main')
    return async () => {}
  })
})

t.test('the first sentinel hangs when the master dies', async t => {
  await repeated(t, async (set, master) => {
    const [sentinel] = set.sentinels
    sentinel?.stop()
    await master.kill()
    return async () => {
      sentinel?.cont()
      await set.revive(master)
    }
  })
})

t.test('all sentinels answer slowly', async t => {
  const set = await startSentinels(t)
  const proxies = await Promise.all(set.sentinels.map(async ({ port }) => await startProxy(t, port)))
  const sentinels = proxies.map(({ port }) => ({ host: '127.0.0.1', port }))
  // Otherwise the quick ones behind the proxies would be asked, too.
  const all = await instances(t, { ...set.options, sentinels, updateSentinels: false }, 4)
  for (const delayMs of Array.from({ length: rounds }, () => [20, 700]).flat()) {
    await set.settled()
    for (const proxy of proxies) proxy.delay(delayMs)
    const master = await set.master()
    await survives(t, set, all, async () => await master.kill())
    for (const proxy of proxies) proxy.delay(0)
    await set.revive(master)
  }
})

anew('a sentinel names a server that is not there, and the one that was given is gone', async t => {
  const set = await startSentinels(t)
  const wrong = await startSentinel(t, join(mkdtempSync(join(tmpdir(), 'wrong-sentinel-')), 'wrong.conf'), await freePort())
  const misled = await instances(t, { ...set.options, sentinels: [{ host: '127.0.0.1', port: wrong.port }, ...set.options.sentinels] })
  // It hears of the others from the only one that it is given.
  const [one] = set.sentinels
  const lonely = await instances(t, { ...set.options, sentinels: [{ host: '127.0.0.1', port: one?.port ?? 0 }] }, 1)
  const master = await set.master()
  await survives(t, set, [...misled, ...lonely], async () => {
    await one?.kill()
    await master.kill()
  })
})

anew('all sentinels and the master hang for a while, and nothing of an instance is left at a sentinel when it closed', async t => {
  const set = await startSentinels(t)
  // Sentinels themselves subscribe to nothing at each other.
  const watchers = async (): Promise<string[]> => (await Promise.all(set.sentinels.map(async ({ admin }) => {
    return String(await admin.call('CLIENT', 'LIST')).split('\n').filter(line => / sub=1 /.test(line))
  }))).flat()
  const all = await instances(t, set.options)
  for (const one of [...set.sentinels, ...set.servers]) one.stop()
  await until(() => all.every(({ backplane }) => backplane.state === 'down'), { timeoutMs: backMs })
  // The fault lasts: attempts to reconnect hang as well, and are given up.
  await sleep(5_000)
  for (const one of [...set.servers, ...set.sentinels]) one.cont()
  await up(all)
  await Promise.all(all.map(async ({ backplane }) => await backplane.close()))
  const left: string[] = []
  await until(async () => {
    left.splice(0, left.length, ...await watchers())
    return left.length === 0
  }, { timeoutMs: 10_000 }).catch(() => {})
  t.strictSame(left, [])
})
