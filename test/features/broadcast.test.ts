import t from 'tap'
import type { BroadcastOptions, Data } from '../../plugin.ts'
import { heard, onEveryCluster, onRedis, reach, type Opened } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const redis = await startRedis(t)

onEveryCluster(t, redis, 'a string travels as a text frame, a Uint8Array as a binary frame with the same bytes', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const members = [await a.enter('data'), await b.enter('data')]
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n))
  const shared = new Uint8Array(bytes.buffer, bytes.byteOffset + 10, 20)
  for (const data of ['', 'grüße 🎉 \0', new Uint8Array(), bytes, shared, new Uint8Array(bytes)]) {
    await a.registry.broadcastToGroup('data', data)
    for (const { client } of members) t.strictSame(await client.next(), typeof data === 'string' ? data : Buffer.from(data))
  }
})

onEveryCluster(t, redis, 'bytes may be used again once the call returned', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const members = [await a.enter('reused'), await b.enter('reused')]
  const bytes = Buffer.alloc(8)
  const sent: unknown[] = []
  for (let n = 0; n < 50; n++) {
    sent.push(a.registry.broadcastToGroup(n % 2 === 0 ? 'reused' : ['reused', 'other'], bytes.fill(n)))
  }
  bytes.fill(255)
  await Promise.all(sent)
  for (const member of members) {
    await until(() => heard(member).length === 50)
    t.strictSame(new Set((heard(member) as Buffer[]).map(message => message[0])), new Set(Array.from({ length: 50 }, (_, n) => n)))
  }
})

onEveryCluster(t, redis, 'except leaves connections out, here and elsewhere, by connection and by id', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const [here, alsoHere, there, alsoThere] = [await a.enter('ex'), await a.enter('ex'), await b.enter('ex'), await b.enter('ex')]
  const all = [here, alsoHere, there, alsoThere]
  const cases: ReadonlyArray<readonly [string, Parameters<typeof a.registry.broadcastToGroup>[2], readonly Opened[]]> = [
    ['a connection here', { except: here.connection }, [alsoHere, there, alsoThere]],
    ['an id here', { except: here.id }, [alsoHere, there, alsoThere]],
    ['a connection elsewhere', { except: there.connection }, [here, alsoHere, alsoThere]],
    ['an id elsewhere', { except: there.id }, [here, alsoHere, alsoThere]],
    ['a list', { except: [here.connection, there.id, alsoThere.id] }, [alsoHere]],
    ['an empty list', { except: [] }, all],
    ['nothing', {}, all],
    ['twice the same', { except: [here.id, here.connection] }, [alsoHere, there, alsoThere]],
    ['ids of nobody', { except: ['', 'nobody', `${a.id}.zzz`, 'ü'.repeat(300), 'x'.repeat(1_000), '\ud800'] }, all],
    ['everyone', { except: all.map(({ id }) => id) }, []]
  ]
  for (const [text, options, recipients] of cases) {
    const result = await a.registry.broadcastToGroup('ex', text, options)
    t.equal(result.localRecipients, recipients.filter(one => one === here || one === alsoHere).length, text)
  }
  await a.registry.broadcastToGroup('ex', 'end')
  for (const one of all) {
    await one.client.nextWhere(message => message === 'end')
    t.strictSame(heard(one), [...cases.filter(([,, recipients]) => recipients.includes(one)).map(([text]) => text), 'end'])
  }
})

onEveryCluster(t, redis, 'except leaves out users and groups, and a filter asks for all of its tags', async (t, cluster, logged) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const [ann, bob, eve] = [
    await a.enter('room', { user: 'ann' }), await b.enter('room', { user: 'bob' }), await b.enter('room', { user: 'eve' })
  ]
  await a.registry.join(bob.id, 'room', { tags: ['vip', 'paid'] })
  await b.registry.join(bob.id, 'staff', { tags: ['night'] })
  await b.registry.join(eve.id, 'room', { tags: ['vip'] })
  await a.registry.join(ann.id, 'hall', { tags: ['vip', 'paid'] })
  const cases: ReadonlyArray<readonly [string, BroadcastOptions, readonly Opened[]]> = [
    ['not ann', { except: { userId: 'ann' } }, [bob, eve]],
    ['not the staff', { except: [{ group: 'staff' }] }, [ann, eve]],
    ['neither', { except: [{ group: 'staff' }, { userId: 'ann' }, { group: 'nowhere' }] }, [eve]],
    ['one of each kind', { except: [{ group: 'hall' }, eve.connection] }, [bob]],
    ['vip', { filter: { tags: ['vip'] } }, [bob, eve]],
    ['all tags', { filter: { tags: ['paid', 'vip'] } }, [bob]],
    ['no tags', { filter: { tags: [] } }, [ann, bob, eve]],
    ['tags of other groups', { filter: { tags: ['night'] } }, []],
    ['vip but bob', { filter: { tags: ['vip'] }, except: { userId: 'bob' } }, [eve]]
  ]
  for (const [text, options, recipients] of cases) {
    const { localRecipients } = await a.registry.broadcastToGroup('room', text, options)
    t.equal(localRecipients, recipients.includes(ann) ? 1 : 0, text)
  }
  const wanted = (one: Opened): string[] => cases.filter(([,, recipients]) => recipients.includes(one)).map(([text]) => text)
  await a.registry.broadcastToGroup(['staff', 'room'], 'in either group', { filter: { tags: ['night', 'vip'] } })
  await a.registry.broadcastToAll('anywhere', { filter: { tags: ['paid'] } })
  await a.registry.join(bob.id, 'room', { tags: [] })
  await a.registry.broadcastToGroup('room', 'none any more', { filter: { tags: ['paid'] } })
  await a.registry.broadcastJson({ userId: 'ann' }, ['to', 'ann'])
  await a.registry.broadcastJson({ all: true }, { over: true })
  for (const one of [ann, bob, eve]) await one.client.nextWhere(message => message === '{"over":true}')
  t.strictSame([ann, bob, eve].map(heard), [
    [...wanted(ann), 'anywhere', '["to","ann"]', '{"over":true}'],
    [...wanted(bob), 'in either group', 'anywhere', '{"over":true}'],
    [...wanted(eve), '{"over":true}']
  ])
  if (logged) {
    const late = await b.enter('other', { user: 'ann' })
    await b.registry.join(late.id, 'room', { history: 100 })
    await b.registry.broadcastToGroup('room', 'live')
    await late.client.nextWhere(message => message === 'live')
    t.strictSame(heard(late), ['not the staff', 'one of each kind', 'no tags', 'live'], 'who reads the log later is judged in the same way')
  }
  const { registry } = a
  for (const tags of ['x', [''], [5], ['x'.repeat(65)], Array.from({ length: 33 }, () => 'x')] as unknown as string[][]) {
    await t.rejects(registry.join(ann.id, 'room', { tags }), { code: 'WSG_OPTION_INVALID' })
    await t.rejects(registry.broadcastToGroup('room', 'x', { filter: { tags } }), { code: 'WSG_OPTION_INVALID' })
  }
  await t.rejects(registry.broadcastToAll('x', { except: { userId: '' } }), { code: 'WSG_USER_ID_INVALID' })
  await t.rejects(registry.broadcastToAll('x', { except: { group: '' } }), { code: 'WSG_GROUP_NAME_INVALID' })
  const many = Array.from({ length: 10_001 }, (_, n) => `${registry.instanceId}.${n}`)
  await t.rejects(registry.broadcastToAll('x', { except: many }), { code: 'WSG_OPTION_INVALID', detail: /at most 10000/ })
  await registry.broadcastToAll('x', { except: many.slice(1) })
  await t.rejects(registry.broadcastJson({ all: true }, undefined), { code: 'WSG_DATA_INVALID' })
}, 'both')

onEveryCluster(t, redis, 'except holds for several groups, users and everyone too', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const [x, y] = [await a.enter('one', { user: 'u' }), await b.enter('two', { user: 'u' })]
  await a.registry.broadcastToGroup(['one', 'two'], 'groups', { except: y.id })
  await a.registry.sendToUser('u', 'user', { except: x.id })
  await a.registry.broadcastToAll('all', { except: [y.connection] })
  for (const one of [x, y]) await one.client.send('over')
  for (const one of [x, y]) await one.client.nextWhere(message => message === 'over')
  t.strictSame([heard(x), heard(y)], [['groups', 'all', 'over'], ['user', 'over']])
})

onEveryCluster(t, redis, 'several groups in one call reach a connection once, on every instance', async (t, cluster, logged) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const groups = ['g1', 'g2', 'g3']
  const members: Opened[] = []
  for (const instance of [a, b]) {
    for (const joined of [['g1'], ['g2', 'g3'], groups]) {
      const member = await instance.open()
      for (const group of joined) await instance.registry.join(member.connection, group)
      members.push(member)
    }
  }
  const outsider = await b.enter('elsewhere')
  const result = await a.registry.broadcastToGroup([...groups, 'g1', 'nobody'], 'once')
  t.strictSame(reach(result), { scope: 'cluster', localRecipients: 3, ...(logged ? {} : { instances: 2 }) })
  t.strictSame(Object.keys(result.positions ?? {}), logged ? [...groups, 'nobody'] : [], 'its place in the log of each group')
  await a.registry.broadcastToAll('end')
  for (const member of [...members, outsider]) {
    await member.client.nextWhere(message => message === 'end')
    t.strictSame(heard(member), member === outsider ? ['end'] : ['once', 'end'])
  }
}, 'both')

onEveryCluster(t, redis, 'a group with a log and one without in one call: one copy for members of both', async (t, cluster) => {
  const logs = { plain: false } as const
  const [a, b] = [await cluster.start({ logs }), await cluster.start({ logs })]
  const members: Opened[] = []
  for (const instance of [a, b]) {
    for (const joined of [['kept', 'plain'], ['plain', 'kept'], ['kept'], ['plain']]) {
      const member = await instance.open()
      for (const group of joined) await instance.registry.join(member.connection, group)
      members.push(member)
    }
  }
  const results = await Promise.all(Array.from({ length: 100 }, async (_, n) => {
    return await (n % 2 === 0 ? a : b).registry.broadcastToGroup(n % 3 === 0 ? ['plain', 'kept'] : ['kept', 'plain'], `both ${n}`)
  }))
  for (const { positions } of results) t.strictSame(Object.keys(positions ?? {}), ['kept'])
  await a.registry.broadcastToGroup(['kept', 'plain'], 'end')
  for (const { client } of members) await client.nextWhere(message => message === 'end')
  const [first, ...others] = members.map(heard)
  t.equal(first?.length, 101)
  t.equal(new Set(first).size, 101, 'nothing twice')
  for (const other of others) t.strictSame(other, first)
  t.strictSame((await b.registry.history('kept', { limit: 200 })).messages.map(({ data }) => data), first, 'as the log has it')
})

onEveryCluster(t, redis, 'simultaneous calls to several groups reach each connection once, in one order', async (t, cluster) => {
  const instances = [await cluster.start(), await cluster.start(), await cluster.start()]
  const members = await Promise.all(instances.map(async instance => await instance.enter('g1')))
  for (const [index, instance] of instances.entries()) {
    for (const group of ['g2', 'g3']) await instance.registry.join(members[index]?.id ?? '', group)
  }
  const orders = [['g1', 'g2', 'g3'], ['g3', 'g2', 'g1'], ['g2', 'g1', 'g3']]
  await Promise.all(instances.map(async ({ registry }, index) => {
    await Promise.all(
      Array.from({ length: 100 }, async (_, n) => await registry.broadcastToGroup(orders[(index + n) % 3] ?? [], `${index}:${n}`))
    )
  }))
  await Promise.all(instances.map(async ({ registry }, index) => await registry.broadcastToGroup('g1', `end ${index}`)))
  await until(() => members.every(member => ['end 0', 'end 1', 'end 2'].every(text => heard(member).includes(text))))
  const [first, ...others] = members.map(heard)
  t.equal(first?.length, 303)
  t.equal(new Set(first).size, 303)
  for (const other of others) t.strictSame(other, first)
}, 'both')

onEveryCluster(t, redis, 'broadcastToAll reaches every connection of every instance, in whatever group', async (t, cluster) => {
  const instances = [await cluster.start(), await cluster.start(), await cluster.start()]
  const connections = await Promise.all(
    instances.flatMap(instance => [instance.open(), instance.enter('some'), instance.open({ user: 'ann' })])
  )
  t.strictSame(await instances[1]?.registry.broadcastToAll('to all'), { scope: 'cluster', localRecipients: 3, instances: 3 })
  for (const { client } of connections) t.equal(await client.next(), 'to all')
})

onEveryCluster(t, redis, 'the result says how far the message went', async (t, cluster, logged) => {
  // A logged message travels with others of its turn, and nobody counts who took it.
  const tookBy = (instances: number): { instances?: number } => logged ? {} : { instances }
  const [a, b] = [await cluster.start(), await cluster.start()]
  t.strictSame(reach(await a.registry.broadcastToGroup('empty', 'x')), { scope: 'cluster', localRecipients: 0, ...tookBy(0) })
  t.strictSame(await a.registry.broadcastToGroup([], 'x'), { scope: 'cluster', localRecipients: 0, instances: 0 })
  await b.enter('room')
  t.strictSame(reach(await a.registry.broadcastToGroup('room', 'x')), { scope: 'cluster', localRecipients: 0, ...tookBy(1) })
  t.strictSame(reach(await a.registry.broadcastToGroup(['room', 'empty'], 'x')), { scope: 'cluster', localRecipients: 0, ...tookBy(1) })
  await a.enter('room')
  t.strictSame(reach(await a.registry.broadcastToGroup('room', 'x')), { scope: 'cluster', localRecipients: 1, ...tookBy(2) })
  t.equal(
    (await a.registry.broadcastToGroup('room', 'x')).position !== undefined, logged, 'and where it stands in the log, if there is one'
  )
  t.strictSame(reach(await a.registry.sendToUser('nobody', 'x')), { scope: 'cluster', localRecipients: 0, ...tookBy(0) })
}, 'both')

onEveryCluster(t, redis, 'wrong data and wrong names are refused before anything is sent', async (t, cluster) => {
  const a = await cluster.start()
  const member = await a.enter('strict', { user: 'ann' })
  for (const data of [
    undefined, null, 5, {}, [], ['x'], new ArrayBuffer(2), new DataView(new ArrayBuffer(2)), new Uint16Array(2)
  ] as unknown as Data[]) {
    const calls: Array<() => Promise<unknown>> = [
      async () => await a.registry.broadcastToGroup('strict', data),
      async () => await a.registry.broadcastToGroup([], data),
      async () => await a.registry.broadcastToAll(data),
      async () => await a.registry.sendToUser('ann', data),
      async () => await a.registry.sendTo(member.id, data),
      async () => await a.registry.sendTo('0000000000.1', data)
    ]
    for (const call of calls) await t.rejects(call(), { code: 'WSG_DATA_INVALID' })
  }
  for (const group of ['', 'a\nb', 'x'.repeat(256), 'ü'.repeat(128), '\ud800', undefined, null, 7, {}, ['ok', '']] as string[]) {
    await t.rejects(a.registry.broadcastToGroup(group, 'x'), { code: 'WSG_GROUP_NAME_INVALID' }, JSON.stringify(group))
  }
  await a.registry.broadcastToGroup('strict', 'first')
  t.equal(await member.client.next(), 'first')
})

onEveryCluster(t, redis, 'a group may be named anything that is a name', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const names = [
    ' ', '#', '*', '{0}', '}{', ':', 'c:all', 'wsg:{0}:live', 'grüße 🎉', '%', '"\'\\', 'ü'.repeat(127), 'x'.repeat(255), '__proto__',
    'constructor'
  ]
  const [x, y] = [await a.open(), await b.open()]
  for (const name of names) {
    await a.registry.join(x.id, name)
    await b.registry.join(y.id, name)
    await a.registry.broadcastToGroup(name, name)
    for (const { client } of [x, y]) t.equal(await client.next(), name)
    t.equal(await b.registry.groupCount(name), 2)
    t.strictSame((await a.registry.members(name)).map(({ connectionId }) => connectionId).sort(), [x.id, y.id].sort())
  }
  await b.registry.broadcastToGroup(names, 'to all of them')
  for (const { client } of [x, y]) t.equal(await client.next(), 'to all of them')
  t.strictSame(x.connection.groups, names)
})

onEveryCluster(t, redis, 'counters say what was sent', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const [x, y] = [await a.enter('counted'), await b.enter('counted')]
  const before = b.registry.stats()
  await a.registry.broadcastToGroup('counted', '1')
  await a.registry.broadcastToGroup(['counted', 'other'], '2')
  await a.registry.sendTo(y.id, '3')
  t.equal(await y.client.next(), '1')
  t.equal(await y.client.next(), '2')
  t.equal(await y.client.next(), '3')
  t.equal(await x.client.next(), '1')
  t.equal(a.registry.stats().messagesPublished, 3)
  t.equal(a.registry.stats().connections, 1)
  t.equal(b.registry.stats().groups, 1)
  t.equal(Number(b.registry.stats().framesSent) - Number(before.framesSent), 3)
})

onRedis(t, redis, 'a message of many megabytes arrives whole', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const member = await b.enter('big')
  const big = Buffer.alloc(20_000_000, 'abcdefg')
  await a.registry.broadcastToGroup('big', big)
  t.ok(big.equals(await member.client.next() as Buffer))
})
