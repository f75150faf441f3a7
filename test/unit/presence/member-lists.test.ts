import t from 'tap'
import type { LocalConnection } from '../../../lib/connection/connection.ts'
import type { FramedMember } from '../../../lib/protocol/frames.ts'
import { Roster, type PresentMember } from '../../../lib/presence/roster.ts'
import type { OutboundMessage } from '../../../lib/connection/outbound/message.ts'
import { resolveLimits } from '../../../lib/options/limits.ts'
import { Metrics } from '../../../lib/metrics.ts'
import { MemberLists, type ListRead } from '../../../lib/presence/member-lists.ts'

const member = (n: number, connectionId = `c${n}`): PresentMember => ({ connectionId, session: `s${n}`, joinedAt: n })

t.test('a list is read once for all who ask, is told what happened meanwhile, and has an end', async t => {
  const reads: Array<(members: PresentMember[]) => void> = []
  const loaded: ListRead[] = []
  const lists = new MemberLists({
    read: async () => await new Promise(resolve => { reads.push(resolve) }),
    loaded: (_, read) => {
      loaded.push(read)
      const roster = new Roster()
      for (const one of read.stored ?? []) roster.add(one)
      return roster.entries()
    }
  }, resolveLimits(), new Metrics())
  const told: Array<{ who: string, members: FramedMember[] }> = []
  const watcher = (who: string): LocalConnection => ({
    outbound: {
      enqueueShared (outgoing: OutboundMessage) {
        const { payload } = outgoing.message({ framed: true, json: false })
        told.push({ who, members: (JSON.parse(payload.toString()) as { members: FramedMember[] }).members })
      }
    }
  }) as unknown as LocalConnection
  const [a, b, c, d] = [watcher('a'), watcher('b'), watcher('c'), watcher('d')]
  const first = lists.send('g', [a])
  const second = Promise.all([lists.send('g', [b]), lists.send('g', [c], true), lists.send('g', [d])])
  t.equal(reads.length, 1)
  t.ok(lists.isPending('g', a) && lists.isPending('g', b))
  lists.cancel('g', d)
  lists.record('g', { event: 'join', member: member(3) })
  reads[0]?.([member(1), member(2)])
  await first
  t.match(told.splice(0), [{ who: 'a', members: [{ session: 's1', connections: 1 }, { session: 's2' }] }])
  t.match(loaded, [{ anew: false, events: [{ event: 'join', member: { session: 's3' } }] }])
  t.notOk(lists.isPending('g', a))
  t.ok(lists.isPending('g', b))
  t.equal(reads.length, 2, 'those who asked meanwhile share the next read')
  reads[1]?.(Array.from({ length: 1_200 }, (_, n) => member(n)))
  await second
  t.strictSame(told.map(({ who, members }) => [who, members.length]), [['b', 1_000], ['c', 1_000]])
  t.match(loaded.at(-1), { anew: true, events: [] })
})
