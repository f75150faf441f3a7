import { randomBytes } from 'node:crypto'
import { cpus } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { withoutQuery, type BenchSettings } from './arguments.ts'
import { Crowd } from './crowd.ts'
import { bottlenecks, OwnUsage } from './own-usage.ts'
import type { Progress } from './progress.ts'
import type { BenchResult } from './report.ts'
import { versions } from '../version.ts'

const probeEveryMs = 250
/** Missing messages count as lost after this long without a delivery (milliseconds). */
const quietMs = 2_000

/** The load test cannot go on; the message says why. */
export class BenchFailure extends Error {}

/**
 * Runs the load test. `interrupted` ends it early: what was measured until then counts.
 * @throws {BenchFailure} when nothing can be measured
 */
export async function bench (settings: BenchSettings, progress: Progress, interrupted: AbortSignal): Promise<BenchResult> {
  const crowd = new Crowd(settings, randomBytes(4).toString('hex'))
  try {
    const connecting = new OwnUsage()
    await connect(crowd, settings, progress, interrupted)
    const connectBottleneck = bottlenecks(connecting.end())
    await hearEachOther(crowd, settings, progress, interrupted)
    const usage = new OwnUsage()
    const seconds = await measure(crowd, settings, progress, usage, interrupted)
    const own = usage.end()
    await receiveTheRest(crowd, settings, progress, interrupted)
    const { sent, deliveries } = crowd
    return {
      version: versions.version,
      address: withoutQuery(settings.address),
      protocol: settings.protocol,
      rooms: settings.rooms.length,
      clients: settings.clients,
      bytes: settings.bytes,
      seconds,
      connected: crowd.connectTimes.count,
      connectMs: crowd.connectTimes.spread(),
      joinMs: crowd.joinTimes.spread(),
      deliveryMs: deliveries.times.spread(),
      asked: Math.round(settings.rate * seconds),
      sent: sent.count,
      due: sent.due,
      delivered: deliveries.delivered,
      doubled: deliveries.doubled,
      outOfOrder: deliveries.outOfOrder,
      refused: crowd.refused.list(),
      lost: crowd.lost.list(),
      failed: crowd.failed.list(),
      own,
      bottleneck: bottlenecks(own),
      connectBottleneck,
      sameMachine: isLoopback(settings.address) ? { cores: cpus().length } : undefined
    }
  } finally {
    crowd.close()
  }
}

async function connect (crowd: Crowd, { clients }: BenchSettings, progress: Progress, interrupted: AbortSignal): Promise<void> {
  let shownAt = -Infinity
  await crowd.connect(() => {
    if (performance.now() - shownAt < 1_000) return
    shownAt = performance.now()
    progress.show(`connecting: ${crowd.connected} of ${clients}${crowd.refused.count > 0 ? `, ${crowd.refused.count} refused` : ''}`)
  }, interrupted)
  if (interrupted.aborted) throw new BenchFailure('ended before anything was measured')
  if (crowd.connected === 0) {
    throw new BenchFailure(`none of ${clients} clients got in: ${crowd.complaints()}`)
  }
}

/** Lets the clients of each room send until each has received something: from then on each message is due to all others. */
async function hearEachOther (crowd: Crowd, settings: BenchSettings, progress: Progress, interrupted: AbortSignal): Promise<void> {
  const { clients, rooms, senders, timeoutMs } = settings
  // A client that is alone in a room hears nobody.
  const isDone = (): boolean => rooms.every(room => crowd.members(room).length < 2 || crowd.members(room).every(({ heard }) => heard))
  const startedAt = performance.now()
  progress.show('waiting until the clients hear each other')
  for (let turn = 0; !isDone() && performance.now() - startedAt < timeoutMs; turn++) {
    if (interrupted.aborted) throw new BenchFailure('ended before anything was measured')
    for (const room of rooms) {
      const members = crowd.members(room)
      // At least two take turns: a route may not send a client what the client said itself.
      const sender = members[turn % Math.min(Math.max(senders, 2), members.length)]
      if (sender !== undefined && members.some(({ heard }) => !heard)) crowd.say(sender, undefined)
    }
    await sleep(probeEveryMs)
  }
  const members = crowd.members()
  if (members.some(({ heard }) => heard)) return
  const why = crowd.complaints()
  throw new BenchFailure(
    (rooms.every(room => crowd.members(room).length < 2)
      ? `no room has two clients: ${members.length} of ${clients} got in and stayed.`
      : 'no client received what another one sent: does the route send it to the room, and does --message have the form that the route ' +
        'wants?') +
    (why === '' ? '' : ` The server said: ${why}`)
  )
}

/** Sends at the rate that is asked for; resolves with how many seconds that took. */
async function measure (
  crowd: Crowd, settings: BenchSettings, progress: Progress, usage: OwnUsage, interrupted: AbortSignal
): Promise<number> {
  const { rate, seconds, rooms, senders } = settings
  const { sent, deliveries } = crowd
  const startedAt = performance.now()
  const endsAt = startedAt + seconds * 1_000
  const dueAt = (n: number): number => startedAt + n * 1_000 / rate
  let shownAt = startedAt
  for (let n = 0; dueAt(n) < endsAt && !interrupted.aborted;) {
    const now = performance.now()
    for (; dueAt(n) <= now && dueAt(n) < endsAt; n++) {
      const members = crowd.members(rooms[n % rooms.length])
      const sender = members[Math.floor(n / rooms.length) % Math.min(senders, members.length)]
      // Nobody is left in this room.
      if (sender === undefined) continue
      usage.sentLate(now - dueAt(n))
      crowd.say(sender, sent.add(dueAt(n), sender.n, members.length - 1))
    }
    if (now - shownAt >= 1_000) {
      shownAt = now
      const p99 = deliveries.times.spread()?.p99.toFixed(1) ?? '-'
      progress.show(
        `${Math.round((now - startedAt) / 1_000)} s of ${seconds}: ${sent.count} sent, ${deliveries.delivered} of ${sent.due} delivered, ` +
        `p99 ${p99} ms; this program: ${Math.round(usage.cpu() * 100)} % of a core`
      )
    }
    await sleep(Math.max(1, Math.min(dueAt(n), shownAt + 1_000) - performance.now()))
  }
  // The last timer may have ended a millisecond early: a run that was not interrupted counts with all its seconds.
  return interrupted.aborted ? Math.min(seconds, (performance.now() - startedAt) / 1_000) : seconds
}

async function receiveTheRest (crowd: Crowd, { timeoutMs }: BenchSettings, progress: Progress, interrupted: AbortSignal): Promise<void> {
  const { sent, deliveries } = crowd
  const startedAt = performance.now()
  // What was under way when the measurement was ended early is no loss.
  const endedEarly = interrupted.aborted
  let latest = deliveries.delivered
  let latestAt = startedAt
  while (deliveries.delivered < sent.due && interrupted.aborted === endedEarly) {
    const now = performance.now()
    if (now - startedAt > timeoutMs || now - latestAt > quietMs) return
    await sleep(20)
    if (deliveries.delivered === latest) continue
    latest = deliveries.delivered
    latestAt = performance.now()
    if (latestAt - startedAt > 1_000) progress.show(`waiting for ${sent.due - latest} deliveries`)
  }
}

function isLoopback (address: string): boolean {
  return /^(localhost|127\.[\d.]+|\[::1\])$/.test(new URL(address.replaceAll(/[{}]/g, '')).hostname)
}
