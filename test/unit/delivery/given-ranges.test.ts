import t from 'tap'
import type { Envelope, LogPosition } from '../../../lib/backplane/backplane.ts'
import type { LocalConnection } from '../../../lib/connection/connection.ts'
import { GivenRanges } from '../../../lib/delivery/given-ranges.ts'
import type { LocalMember } from '../../../lib/hub/local-member.ts'
import { messageEnvelope } from '../../helpers/envelopes.ts'

t.test('where its copies stand tells whether a connection was given a message out of the log of another group', t => {
  const connection = {} as LocalConnection
  const member = (group: string): LocalMember => ({ connection, group, holding: true }) as LocalMember
  const [one, two] = [member('one'), member('two')]
  const at = (offset: number): LogPosition => ({ epoch: 'e', offset, nonce: 1 })
  const instance: { reached?: LogPosition, member?: LocalMember } = {}
  const ranges = new GivenRanges({ find: () => instance.member }, { position: () => instance.reached })
  const shared = (offset: number): Envelope & { position: LogPosition } => ({
    ...messageEnvelope('x', { origin: 'o', sequence: offset, target: { kind: 'group', name: 'one' } }), shared: true, position: at(offset)
  })
  const copyOf = (offset: number, group = 'one', epoch = 'e'): Envelope => ({ ...shared(offset), places: [{ group, epoch, offset }] })

  t.notOk(ranges.has(two, copyOf(5)), 'nothing was given yet')
  ranges.add(one, shared(5), 2)
  ranges.add(one, shared(9), 2)
  for (const [offset, given] of [[2, false], [3, true], [9, true], [10, false]] as const) {
    t.equal(ranges.has(two, copyOf(offset)), given, `the message at ${offset}`)
  }
  t.notOk(ranges.has(two, copyOf(5, 'one', 'f')), 'another log of the group')
  t.notOk(ranges.has(two, copyOf(5, 'three')), 'a group of which nothing was given')
  t.notOk(ranges.has(one, copyOf(5)), 'its own place says nothing')

  Object.assign(one, { holding: false })
  Object.assign(instance, { reached: at(20), member: one })
  t.ok(ranges.has(two, copyOf(20)), 'a member in step has all that was delivered')
  t.notOk(ranges.has(two, copyOf(21)))
  t.end()
})
