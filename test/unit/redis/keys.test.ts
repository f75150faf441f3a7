import t from 'tap'
import { Keys } from '../../../lib/backplane/redis/keys.ts'
import { drawId } from '../../../lib/ids.ts'

const names = ['lobby', '', ' ', '#', ':', 'a:b', 'c:all', 'live', 'inst', '{0}', '}{', 'grüße', 'x'.repeat(255)]

t.test('every name starts with the prefix and carries the hash tag of its partition, so that scripts work on a cluster', async (t) => {
  const keys = new Keys('app:')
  const id = drawId()
  const all = [
    keys.leases, keys.instances, keys.generations, keys.index(id), keys.base,
    ...names.flatMap(name => [
      keys.members(name, id), keys.counts(name), keys.revocations(name),
      ...(['group', 'user', 'instance', 'all'] as const).map(kind => keys.channel({ kind, name }))
    ])
  ]
  // Redis hashes what stands between the first { and the next }.
  for (const key of all) t.equal(/^app:\{(\d+)\}:/.exec(key)?.[1], '0', key)
})

t.test('no two things have the same name, whatever groups and users are called', async (t) => {
  const keys = new Keys('wsg:')
  const ids = [drawId(), drawId()]
  const all = [
    keys.leases, keys.instances, keys.generations, ...ids.map(id => keys.index(id)), ...ids.map(id => keys.answer(id)),
    keys.channel({ kind: 'all', name: '' }),
    ...names.flatMap(name => [
      keys.counts(name), keys.revocations(name), keys.channel({ kind: 'group', name }), keys.channel({ kind: 'user', name }),
      ...[name, `${name}:${ids[0] ?? ''}`].flatMap(group => ids.map(id => keys.members(group, id)))
    ]),
    ...ids.map(name => keys.channel({ kind: 'instance', name }))
  ]
  t.equal(new Set(all).size, all.length)
})

t.test('clusters with different prefixes share no name', async (t) => {
  const [one, other] = [new Keys('one:'), new Keys('two:')]
  t.not(one.counts('g'), other.counts('g'))
  t.not(one.channel({ kind: 'all', name: '' }), other.channel({ kind: 'all', name: '' }))
})
