import t from 'tap'
import type { Test } from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { createPublisher } from '../../../plugin.ts'
import { startInstance, type Instance } from '../../helpers/instance.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { freePort } from '../../helpers/ports.ts'
import { startRedis } from '../../helpers/redis.ts'
import { until } from '../../helpers/until.ts'
import { fault, Reader } from './reader.ts'

const clients = 100
const rooms = Array.from({ length: 5 }, (_, i) => `room${i}`)
/** Each client is in the room of its route, and joins this one by itself. */
const shared = 'news'
const everyMs = 120 // per group: 50 messages a second in all

// The short form of `npm run rolling` in bench/, with 2,000 clients.
for (const end of ['close', 'kill'] as const) {
  t.test(`three instances are restarted in turn by ${end}, under load: nothing lost, doubled or out of order`, async t => {
    noUnhandled(t)
    const redis = await startRedis(t)
    const ports = [await freePort(), await freePort(), await freePort()]
    const start = async (port: number): Promise<Instance> => await startInstance(t, { redisUrl: redis.url, port })
    const instances = await Promise.all(ports.map(start))
    const readers = Array.from({ length: clients }, (_, i) => new Reader(t, ports, roomOf(i)))
    const groupsOf = (reader: Reader): string[] => [roomOf(readers.indexOf(reader)), shared]
    const away = (): number => readers.filter(reader => !reader.isIn(groupsOf(reader))).length
    await Promise.all(readers.map(async ({ client }) => await client.join(shared)))
    await until(() => away() === 0, { timeoutMs: 60_000, what: 'all clients to be there' })

    const load = publish(t, redis.url)
    const backMs: number[] = []
    for (const [i, instance] of instances.entries()) {
      await sleep(500)
      const began = performance.now()
      await instance[end]()
      instances[i] = await start(instance.port)
      await until(() => away() === 0, { timeoutMs: 60_000, what: 'all clients to be back' })
      backMs.push(Math.round(performance.now() - began))
    }
    await sleep(500)
    const sent = await load.stop()

    const due = readers.flatMap(
      (reader, i) => groupsOf(reader).map(group => ({ ledger: reader.ledger(group), count: sent.get(group) ?? 0, i }))
    )
    const missing = (): number => due.reduce((sum, { ledger, count }) => sum + count - ledger.delivered, 0)
    await until(() => missing() === 0, { what: 'the last messages' }).catch(error => t.comment(error))
    await sleep(300) // for what comes twice
    t.equal(missing(), 0)
    t.equal(fault(readers, sent, groupsOf), undefined)
    t.equal(away(), 0)
    t.ok(readers.some(({ returns }) => returns > 1), 'clients had to come back')
    const pauses = due.map(({ ledger }) => Math.round(ledger.longestPauseMs)).sort((a, b) => a - b)
    t.comment(`${end}: ${[...sent.values()].reduce((a, b) => a + b)} messages, ` +
      `${due.reduce((sum, { count }) => sum + count, 0)} deliveries; ` +
      `all back after ${backMs.join(', ')} ms; longest pause: median ${pauses[pauses.length >> 1]} ms, worst ${pauses.at(-1)} ms`)
  })
}

function roomOf (i: number): string {
  return rooms[i % rooms.length] ?? ''
}

/** Numbers the messages of each group, one after the other, until told to stop. Resolves then with how many there are. */
function publish (t: Test, redis: string): { stop: () => Promise<ReadonlyMap<string, number>> } {
  const publisher = createPublisher({ redis, operationTimeoutMs: 10_000 })
  t.teardown(async () => await publisher.close())
  const stopping = new AbortController()
  const sent = new Map<string, number>()
  const series = [...rooms, shared].map(async group => {
    for (let n = 1; !stopping.signal.aborted; n++) {
      const pause = sleep(everyMs)
      await publisher.broadcastToGroup(group, String(n))
      sent.set(group, n)
      await pause
    }
  })
  return {
    async stop () {
      stopping.abort()
      await Promise.all(series)
      return sent
    }
  }
}
