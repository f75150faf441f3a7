import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { AwayMembers } from '../../../lib/presence/away.ts'
import type { LocalConnection } from '../../../lib/connection/connection.ts'
import type { FramedMember } from '../../../lib/protocol/frames.ts'
import { Roster, type PresentMember } from '../../../lib/presence/roster.ts'
import type { OutboundMessage } from '../../../lib/connection/outbound/message.ts'
import { resolveLimits } from '../../../lib/options/limits.ts'
import { Metrics } from '../../../lib/metrics.ts'
import { MemberLists, type ListRead } from '../../../lib/presence/member-lists.ts'
import { until } from '../../helpers/until.ts'

const member = (n: number, connectionId = `c${n}`): PresentMember => ({ connectionId, session: `s${n}`, joinedAt: n })

t.test('those who are away are given up after the grace, in groups', async t => {
  const ended: string[] = []
  const absences = new AwayMembers(50, gone => {
    for (const [group, members] of gone) {
      ended.push(`${group}: ${members.map(({ session }) => session).join()}`)
    }
  })
  t.teardown(() => absences.close())
  absences.add('a', member(1))
  absences.add('a', member(2))
  t.equal(absences.count('a'), 2)
  t.ok(absences.remove('a', 's1'))
  t.notOk(absences.remove('a', 's1'))
  await until(() => ended.length > 0)
  t.strictSame(ended, ['a: s2'])
  t.equal(absences.size, 0)
})

t.test('a session that breaks again waits anew', async t => {
  const ended: PresentMember[] = []
  const absences = new AwayMembers(200, gone => { ended.push(...gone.get('a') ?? []) })
  t.teardown(() => absences.close())
  absences.add('a', member(1, 'old'))
  await sleep(120)
  absences.add('a', member(1, 'new'))
  t.equal(absences.size, 1)
  await sleep(120)
  t.equal(ended.length, 0)
  await until(() => ended.length > 0)
  t.strictSame(ended.map(({ connectionId }) => connectionId), ['new'])
})

t.test('at most 100,000 are waited for: who is away the longest is given up early', async t => {
  let ended = 0
  const absences = new AwayMembers(600_000, gone => { for (const members of gone.values()) ended += members.length })
  t.teardown(() => absences.close())
  for (let n = 0; n < 100_010; n++) absences.add(`g${n % 10}`, member(n))
  await until(() => ended > 0)
  t.equal(ended, 10)
  t.equal(absences.size, 100_000)
})

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
