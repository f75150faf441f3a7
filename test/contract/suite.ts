import assert from 'node:assert/strict'
import {
  maxBlocks, maxPageBytes, maxStreamsPerGroup, type Appended, type Backplane, type Envelope, type GapReason, type LocalInstance,
  type LogLimits, type LogPosition, type Revocation, type StreamName, type StreamWrite, type StreamWritten, type Target
} from '../../lib/backplane/backplane.ts'
import { drawId } from '../../lib/ids.ts'
import { logStart } from '../../lib/backplane/position.ts'
import type { Member } from '../../lib/types.ts'

/** One empty cluster: every backplane it makes is another instance of it. */
export interface ContractCluster {
  backplane (): Backplane
  close? (): Promise<void>
}

export interface ContractOptions {
  /** In the names of the tests. */
  readonly name: string
  /** Runs one test: `test` of tap, of node:test, or any other runner that takes a name and an async function. */
  readonly test: (name: string, run: () => Promise<void>) => unknown
  /** Makes an empty cluster, for each test anew. */
  readonly create: () => ContractCluster | Promise<ContractCluster>
  /**
   * For backplanes that keep groups apart, on several servers say: which part a group lies in. What the contract says of several groups
   * then holds for those of one part.
   */
  readonly partOf?: ((group: string) => number | string) | undefined
}

type AppendOptions = Partial<LogLimits> & { readonly key?: string | undefined }

// Not that of test/helpers: this file ships, and those do not.
const log = new Proxy({}, { get: (_, key) => key === 'child' ? () => log : key === 'level' ? 'silent' : () => {} }) as LocalInstance['log']

/** What a backplane serves, reduced to its tables. */
class Instance implements LocalInstance {
  readonly instanceId: string
  readonly label = ''
  readonly log = log
  readonly backplane: Backplane
  readonly received: Envelope[] = []
  readonly gaps: Array<{ readonly group: string, readonly reason: GapReason, readonly position: LogPosition }> = []
  readonly #groups = new Map<string, Map<string, Member>>()
  readonly #users = new Map<string, number>()
  #sequence = 0
  #connections = 0

  constructor (backplane: Backplane, instanceId: string) {
    this.backplane = backplane
    this.instanceId = instanceId
  }

  deliver (envelope: Envelope): void { this.received.push(envelope) }
  gap (group: string, reason: GapReason, position: LogPosition): void { this.gaps.push({ group, reason, position }) }
  logged (group: string): boolean { return group.startsWith('log') }
  member (group: string, connectionId: string): Member | undefined { return this.#groups.get(group)?.get(connectionId) }
  memberIds (group: string): Iterable<string> { return this.#groups.get(group)?.keys() ?? [] }
  connectionsOf (userId: string): number { return this.#users.get(userId) ?? 0 }
  groups (): Iterable<string> { return this.#groups.keys() }
  stateChanged (): void {}

  get texts (): string[] { return this.received.map(({ payload }) => payload.toString()) }

  publish (targets: Target | readonly Target[], text: string | Buffer, more: Partial<Envelope> = {}): Promise<number | undefined> {
    const list = Array.isArray(targets) ? targets as readonly Target[] : [targets as Target]
    const [target = group('')] = list
    return this.backplane.publish(list, { ...this.#envelope(target, text), shared: list.length > 1, ...more })
  }

  /** To one group, whose log it stands in. */
  async append (name: string, text: string, options?: AppendOptions): Promise<Appended & { readonly position: LogPosition }> {
    const appended = await this.appendTo([name], text, options)
    return { ...appended, position: appended.positions.get(name) ?? logStart }
  }

  /** To several groups: those whose name begins with `log` keep one. */
  appendTo (names: readonly string[], text: string, { key, ...limits }: AppendOptions = {}): Promise<Appended> {
    const log = { maxMessages: 100, maxBytes: 1_048_576, ttlMs: 60_000, ...limits }
    const targets = names.map(name => ({ group: name, log: this.logged(name) ? log : undefined }))
    return this.backplane.append(targets, { ...this.#envelope(group(names[0] ?? ''), text), shared: names.length > 1 }, key)
  }

  #envelope (target: Target, text: string | Buffer): Envelope {
    return {
      origin: this.instanceId,
      sequence: ++this.#sequence,
      kind: 'message',
      target,
      shared: false,
      except: [],
      command: '',
      binary: typeof text !== 'string',
      payload: Buffer.from(text)
    }
  }

  async writeStream (
    { group: name, id, epoch }: StreamName & { readonly epoch: string }, at: number, text: string, more: Partial<StreamWrite> = {}
  ): Promise<StreamWritten | undefined> {
    const envelope = this.#envelope(group(name), text)
    return await this.backplane.streams?.write({ group: name, id, epoch, at, text, keepMs: 60_000, renew: true, envelope, ...more })
  }

  newId (): string { return `${this.instanceId}.${(++this.#connections).toString(36)}` }

  /** Resolves with how many connections the user has elsewhere. */
  async has (userId: string, connections: number): Promise<number> {
    this.#users.set(userId, connections)
    return await this.backplane.syncUser(userId)
  }

  async join (name: string, id = this.newId(), more: Partial<Member> = {}): Promise<string> {
    const members = this.#groups.get(name) ?? new Map<string, Member>()
    this.#groups.set(name, members.set(id, { connectionId: id, instanceId: this.instanceId, joinedAt: Date.now(), ...more }))
    await this.backplane.syncMember(name, id)
    return id
  }

  async leave (name: string, id: string): Promise<void> {
    const members = this.#groups.get(name)
    members?.delete(id)
    if (members?.size === 0) this.#groups.delete(name)
    await this.backplane.syncMember(name, id)
  }
}

/** Checks that a backplane keeps the contract written in its interface. Needs nothing but an assertion-free `test` function. */
export function backplaneContract ({ name, test, create, partOf = () => 0 }: ContractOptions): void {
  /** The names, each with an ending where it needs one to lie in the same part as the first. */
  function together (first: string, ...others: string[]): string[] {
    const part = partOf(first)
    return [first, ...others.map(other => {
      let name = other
      for (let n = 0; partOf(name) !== part; n++) name = `${other}.${n}`
      return name
    })]
  }

  /** The texts in the order they came in, where there is one. */
  const inOrder = (texts: readonly string[]): string[] => partOf('a') === partOf('b') ? [...texts] : [...texts].sort()

  function rule (title: string, run: (start: (instanceId?: string) => Promise<Instance>) => Promise<void>): void {
    test(`${name}: ${title}`, async () => {
      const cluster = await create()
      const instances: Instance[] = []
      try {
        await run(async (instanceId = drawId()) => {
          const instance = new Instance(cluster.backplane(), instanceId)
          instances.push(instance)
          await instance.backplane.start(instance)
          return instance
        })
      } finally {
        await Promise.all(instances.map(async ({ backplane }) => await backplane.close()))
        await cluster.close?.()
      }
    })
  }

  rule('of all instances that ask, one hears that a group, or a user, came or went', async start => {
    const [a, b] = [await start(), await start()]
    if (a.backplane.settle === undefined) return
    const heard = async (kind: 'group' | 'user', names: readonly string[] | undefined): Promise<unknown[]> => {
      return (await Promise.all([a, b].map(async ({ backplane }) => await backplane.settle?.(kind, names) ?? []))).flat()
    }
    const [x, y] = [await a.join('lobby'), await b.join('lobby')]
    await Promise.all([a.has('ann', 2), b.has('ann', 1)])
    assert.deepEqual(await heard('group', ['lobby', 'nobody here']), [{ name: 'lobby', present: true }])
    assert.deepEqual(await heard('user', ['ann', 'nobody']), [{ name: 'ann', present: true }])
    await a.leave('lobby', x)
    await a.has('ann', 0)
    assert.deepEqual([...await heard('group', ['lobby']), ...await heard('user', undefined)], [], 'somebody is still there')
    await b.leave('lobby', y)
    await b.has('ann', 0)
    assert.deepEqual(await heard('group', undefined), [{ name: 'lobby', present: false }])
    assert.deepEqual(await heard('user', ['ann']), [{ name: 'ann', present: false }])
  })

  rule('an envelope reaches every subscribed instance as it was sent, the publisher included', async start => {
    const [a, b] = [await start(), await start()]
    const audience = { exceptUsers: ['ann', 'grüße'], exceptGroups: ['lobby 2'], tags: ['vip'], taggedIn: ['lobby'] }
    await Promise.all([a, b].map(async one => await one.backplane.subscribe(group('lobby'))))
    await a.publish(group('lobby'), Buffer.from([0, 255, 10, 13]), { except: [a.newId(), b.newId()], audience })
    await a.publish(group('lobby'), 'grüße')
    for (const { received } of [a, b]) {
      await until(() => received.length === 2)
      assert.deepEqual(received.map(({ payload }) => [...payload]), [[0, 255, 10, 13], [...Buffer.from('grüße')]])
      assert.deepEqual(received.map(({ binary }) => binary), [true, false])
      assert.deepEqual(received.map(({ except }) => except), [[`${a.instanceId}.1`, `${b.instanceId}.1`], []])
      assert.deepEqual(received.map(envelope => envelope.audience), [audience, undefined])
      assert.deepEqual(received.map(({ origin, sequence }) => [origin, sequence]), [[a.instanceId, 1], [a.instanceId, 2]])
      assert.deepEqual(received[0]?.target, group('lobby'))
      assert.deepEqual(
        received.map(({ kind, shared, command }) => [kind, shared, command]), [['message', false, ''], ['message', false, '']]
      )
    }
  })

  rule('requests and replies carry their command beside the payload', async start => {
    const [a, b] = [await start(), await start()]
    const inbox: Target = { kind: 'instance', name: b.instanceId }
    await b.backplane.subscribe(inbox)
    await a.publish(inbox, Buffer.alloc(70_000, 7), { kind: 'request', command: '{"id":1,"op":"ü"}' })
    await a.publish(inbox, '', { kind: 'reply', command: '{"id":2}' })
    await until(() => b.received.length === 2)
    assert.deepEqual(
      b.received.map(({ kind, command, payload }) => [kind, command, payload.length]),
      [['request', '{"id":1,"op":"ü"}', 70_000], ['reply', '{"id":2}', 0]]
    )
  })

  rule('an instance gets nothing for targets it did not subscribe to', async start => {
    const [a, b] = [await start(), await start()]
    await b.backplane.subscribe(group('other'))
    await a.backplane.subscribe({ kind: 'user', name: 'lobby' })
    await a.publish(group('lobby'), 'nobody')
    await a.publish(group('other'), 'end')
    await until(() => b.received.length > 0)
    assert.deepEqual(b.texts, ['end'])
    assert.deepEqual(a.texts, [])
  })

  rule('a user\'s connections are counted over all instances, as each last said', async start => {
    const [a, b, c] = [await start(), await start(), await start()]
    assert.equal(await a.has('ann', 2), 0, 'none elsewhere')
    assert.equal(await b.has('ann', 3), 2)
    assert.equal(await b.has('bob', 1), 0, 'of another user')
    assert.equal(await c.has('ann', 0), 5)
    assert.equal(await a.has('ann', 1), 3)
    assert.equal(await b.has('ann', 3), 1, 'to say it again changes nothing')
    assert.deepEqual(await Promise.all([c.has('ann', 1), c.has('bob', 1), c.has('ann', 2)]), [4, 1, 4], 'at the same time')
    await b.backplane.close()
    assert.equal(await a.has('ann', 1), 2, 'an instance that closed has none')
    assert.equal(await c.has('ann', 0), 1)
    await Promise.all([a.has('ann', 0), c.has('bob', 0)])
  })

  rule('names are blocked for as long as said, for instances that start later too, and can be let in before', async start => {
    const a = await start()
    assert.deepEqual(await a.backplane.blocks() ?? [], [])
    assert.equal(await a.backplane.block('u:ann', 60_000), true)
    assert.equal(await a.backplane.block('t:1', 60_000), true)
    assert.equal(await a.backplane.block('u:bob', 60_000), true)
    const b = await start()
    const names = async (): Promise<string[]> => (await b.backplane.blocks() ?? []).map(({ name }) => name).sort()
    assert.deepEqual(await names(), ['t:1', 'u:ann', 'u:bob'])
    for (const { name, leftMs } of await b.backplane.blocks() ?? []) {
      assert.ok(leftMs > 0 && leftMs <= 60_000, `${name} ${leftMs}`)
    }
    assert.equal(await b.backplane.block('u:bob', 0), true, 'let in')
    assert.equal(await b.backplane.block('u:nobody', 0), true, 'who was not blocked')
    assert.equal(await b.backplane.block('t:1', 200), true, 'a later block replaces the first')
    await until(async () => (await names()).join() === 'u:ann')
    assert.equal(await a.backplane.block('u:ann', 200), true)
    await until(async () => (await names()).length === 0)
  })

  rule('the list of blocked names is bounded', async start => {
    const a = await start()
    const setAll = async (forMs: number): Promise<void> => {
      for (let n = 0; n < maxBlocks; n += 100) {
        await Promise.all(Array.from({ length: 100 }, async (_, i) => { await a.backplane.block(`u:${n + i}`, forMs) }))
      }
    }
    await setAll(60_000)
    assert.equal((await a.backplane.blocks())?.length, maxBlocks)
    assert.equal(await a.backplane.block('u:one more', 60_000), false)
    assert.equal(await a.backplane.block('u:7', 60_000), true, 'who is on it already')
    assert.equal(await a.backplane.block('u:8', 0), true)
    assert.equal(await a.backplane.block('u:one more', 60_000), true)
    await setAll(0)
    assert.equal(await a.backplane.block('u:one more', 0), true)
  })

  rule('publish resolves with how many instances took it, when it says so at all', async start => {
    const [a, b] = [await start(), await start()]
    const none = await a.publish(group('lobby'), 'x')
    await a.backplane.subscribe(group('lobby'))
    await b.backplane.subscribe(group('lobby'))
    const both = await a.publish(group('lobby'), 'x')
    assert.ok(none === undefined || none === 0)
    assert.ok(both === undefined || both === 2)
  })

  rule('what is published after subscribe resolved arrives', async start => {
    const [a, b] = [await start(), await start()]
    for (let round = 0; round < 300; round++) {
      const target = group(`race-${round}`)
      await b.backplane.subscribe(target)
      await a.publish(target, String(round))
    }
    await until(() => b.received.length === 300)
    assert.deepEqual(inOrder(b.texts), inOrder(Array.from({ length: 300 }, (_, round) => String(round))))
  })

  rule('a target wanted again right after it was given up still delivers, and nothing twice', async start => {
    const [a, b] = [await start(), await start()]
    for (let round = 0; round < 100; round++) {
      const wanted = b.backplane.subscribe(group('flap'))
      if (round % 3 === 0) b.backplane.unsubscribe(group('flap'))
      await b.backplane.subscribe(group('flap'))
      await wanted
      await a.publish(group('flap'), String(round))
      if (round % 2 === 0) {
        await until(() => b.received.length === round + 1)
        b.backplane.unsubscribe(group('flap'))
      }
    }
    await until(() => b.received.length === 100)
    assert.deepEqual(b.texts, Array.from({ length: 100 }, (_, round) => String(round)))
  })

  rule('all instances see the messages of a group in one order, whoever sends them', async start => {
    const instances = [await start(), await start(), await start()]
    for (const { backplane } of instances) await backplane.subscribe(group('order'))
    await Promise.all(instances.map(async (one, index) => {
      for (let n = 0; n < 200; n++) {
        const sent = one.publish(group('order'), `${index}:${n}`)
        if (n % 7 === 0) await sent
      }
    }))
    await until(() => instances.every(({ received }) => received.length === 600))
    const [first, ...others] = instances.map(({ texts }) => texts)
    for (const other of others) assert.deepEqual(other, first)
    for (const index of [0, 1, 2]) {
      assert.deepEqual(first?.filter(text => text.startsWith(`${index}:`)), Array.from({ length: 200 }, (_, n) => `${index}:${n}`))
    }
  })

  rule('copies of one envelope to several targets arrive one after another, with nothing between', async start => {
    const [a, b] = [await start(), await start()]
    const names = together('g1', 'g2', 'g3')
    const targets = names.map(group)
    for (const target of targets) await b.backplane.subscribe(target)
    const noise = Promise.all(Array.from({ length: 300 }, async (_, n) => await a.publish(targets[n % 3] ?? group(''), 'noise')))
    await Promise.all(Array.from({ length: 50 }, async () => await a.publish(targets, 'shared')))
    await noise
    await until(() => b.received.length === 450)
    const shared = b.received.map((envelope, index) => ({ ...envelope, index })).filter(({ shared }) => shared)
    for (let at = 0; at < shared.length; at += 3) {
      const copies = shared.slice(at, at + 3)
      assert.equal(new Set(copies.map(({ sequence }) => sequence)).size, 1)
      assert.deepEqual(copies.map(({ target }) => target.name).sort(), [...names].sort())
      assert.equal((copies[2]?.index ?? 0) - (copies[0]?.index ?? 0), 2)
    }
  })

  rule('names are taken as they are, and kinds of targets do not meet', async start => {
    const [a, b] = [await start(), await start()]
    const names = ['*', '?', '[ab]', '{x}', 'a:b', 'a:', '__proto__', 'constructor', '#', ' ', 'ü'.repeat(127), 'x'.repeat(255), '🦊']
    for (const one of names) {
      await b.backplane.subscribe(group(one))
      await b.backplane.subscribe({ kind: 'user', name: one })
      await b.join(one)
    }
    for (const one of names) await a.publish({ kind: 'user', name: one }, 'to user')
    for (const one of names) await a.publish(group(one), 'to group')
    await until(() => b.received.length === 2 * names.length)
    const received = b.received.map(({ target: { kind, name } }) => `${kind} ${name}`)
    assert.deepEqual(inOrder(received), inOrder(['user', 'group'].flatMap(kind => names.map(name => `${kind} ${name}`))))
    for (const one of names) assert.equal(await a.backplane.count(one), 1, `count of ${one}`)
  })

  rule('the caller may reuse its bytes once publish was called', async start => {
    const a = await start()
    await a.backplane.subscribe(group('lobby'))
    const payload = Buffer.from('before')
    const sent = a.publish(group('lobby'), '', { payload })
    payload.fill('x')
    await sent
    await until(() => a.received.length === 1)
    assert.deepEqual(a.texts, ['before'])
  })

  rule('a message of a log arrives with its position, on every instance, and can be read again', async start => {
    const [a, b] = [await start(), await start()]
    for (const { backplane } of [a, b]) await backplane.subscribe(group('log'))
    assert.deepEqual(a.backplane.position('log'), logStart)
    const first = await a.append('log', 'one')
    const second = await b.append('log', 'two')
    assert.deepEqual([first.position.offset, second.position.offset, first.duplicate, first.queued], [1, 2, false, false])
    assert.equal(first.position.epoch, second.position.epoch)
    for (const { received, backplane } of [a, b]) {
      await until(() => received.length === 2)
      assert.deepEqual(received.map(({ position }) => position), [first.position, second.position])
      assert.deepEqual(backplane.position('log'), second.position)
      const { messages, end: top, more, gap } = await backplane.history('log', first.position, 10)
      assert.deepEqual(
        messages.map(({ payload, position, origin }) => [payload.toString(), position, origin]), [['two', second.position, b.instanceId]]
      )
      assert.deepEqual([top, more, gap], [second.position, false, undefined])
    }
  })

  rule('concurrent appends of all instances have one order, without a hole, and none is doubled', async start => {
    const instances = [await start(), await start(), await start()]
    for (const { backplane } of instances) await backplane.subscribe(group('log'))
    await Promise.all(instances.map(async (one, index) => {
      await Promise.all(Array.from({ length: 200 }, async (_, n) => await one.append('log', `${index}:${n}`, { maxMessages: 1000 })))
    }))
    await until(() => instances.every(({ received }) => received.length === 600))
    const [first, ...others] = instances.map(({ texts }) => texts)
    for (const other of others) assert.deepEqual(other, first)
    for (const { received, gaps } of instances) {
      assert.deepEqual(received.map(({ position }) => position?.offset), Array.from({ length: 600 }, (_, n) => n + 1))
      assert.deepEqual(gaps, [])
    }
    for (const index of [0, 1, 2]) {
      assert.deepEqual(first?.filter(text => text.startsWith(`${index}:`)), Array.from({ length: 200 }, (_, n) => `${index}:${n}`))
    }
    const { messages } = await (instances[0] as Instance).backplane.history('log', logStart, 600)
    assert.deepEqual(messages.map(({ payload }) => payload.toString()), first)
  })

  rule('a log keeps its latest messages, and says when those after a position are gone', async start => {
    const a = await start()
    const appended: Array<{ readonly position: LogPosition }> = []
    for (let n = 1; n <= 10; n++) appended.push(await a.append('log', String(n), { maxMessages: 4 }))
    const at = (n: number): LogPosition => appended[n - 1]?.position ?? logStart
    const read = async (since: LogPosition | undefined, limit = 100): Promise<unknown[]> => {
      const { messages, gap, before, more } = await a.backplane.history('log', since, limit)
      return [messages.map(({ payload }) => payload.toString()).join(), gap, before.offset, more]
    }
    assert.deepEqual(await read(at(8)), ['9,10', undefined, 8, false])
    assert.deepEqual(await read(at(6)), ['7,8,9,10', undefined, 6, false])
    assert.deepEqual(await read(at(6), 3), ['7,8,9', undefined, 6, true])
    assert.deepEqual(await read(at(10)), ['', undefined, 10, false])
    assert.deepEqual(await read(at(5)), ['7,8,9,10', 'trimmed', 6, false])
    assert.deepEqual(await read(logStart), ['7,8,9,10', 'trimmed', 6, false])
    assert.deepEqual(await read(undefined, 2), ['9,10', undefined, 8, false])
    assert.deepEqual(await read(undefined), ['7,8,9,10', undefined, 6, false])
    assert.deepEqual(await read({ ...at(8), epoch: '12345678' }), ['7,8,9,10', 'epoch', 6, false])
    assert.deepEqual(await read({ ...at(8), nonce: at(8).nonce + 1 }), ['', 'rewound', 10, false])
    assert.deepEqual(await read({ ...at(10), offset: 11 }), ['', 'rewound', 10, false])
    assert.deepEqual((await a.backplane.history('log-none', undefined, 10)).messages, [])
    assert.equal((await a.backplane.history('log-none', logStart, 10)).gap, undefined)
    assert.equal((await a.backplane.history('log-none', at(1), 10)).gap, 'epoch')
  })

  rule('a log keeps as many bytes as it may, but at least its latest message', async start => {
    const a = await start()
    const kept = async (): Promise<string[]> => (await a.backplane.history('log', undefined, 100)).messages.map(
      ({ payload }) => `${payload.toString('latin1', 0, 1)} ${payload.length}`
    )
    const limits = { maxBytes: 10_000 }
    for (const letter of 'abcdef') await a.append('log', letter.repeat(3_000), limits)
    assert.deepEqual(await kept(), ['d 3000', 'e 3000', 'f 3000'])
    await a.append('log', 'g'.repeat(20_000), limits)
    assert.deepEqual(await kept(), ['g 20000'], 'also when it alone is larger')
    for (const letter of 'hi') await a.append('log', letter.repeat(3_000), limits)
    assert.deepEqual(await kept(), ['h 3000', 'i 3000'])
    assert.equal((await a.backplane.history('log', logStart, 100)).gap, 'trimmed')
  })

  rule('of two settings of one log the larger counts, field by field', async start => {
    const [a, b] = [await start(), await start()]
    const offsets = async (): Promise<number[]> => (await a.backplane.history('log', undefined, 100)).messages.map(
      ({ position }) => position.offset
    )
    for (let n = 1; n <= 10; n++) await a.append('log', String(n), { maxMessages: 8 })
    await b.append('log', 'from one who would keep less', { maxMessages: 2, maxBytes: 100 })
    assert.deepEqual(await offsets(), [4, 5, 6, 7, 8, 9, 10, 11])
    await b.append('log', 'from one who would keep more', { maxMessages: 9 })
    assert.deepEqual(await offsets(), [4, 5, 6, 7, 8, 9, 10, 11, 12])
  })

  rule('a message to several groups stands in all of their logs, and is there at once for all', async start => {
    const [a, b] = [await start(), await start()]
    const [log1 = '', log2 = '', log3 = '', plain = ''] = together('log-1', 'log-2', 'log-3', 'plain')
    for (const name of [log1, log2, plain]) await b.backplane.subscribe(group(name))
    await a.append(log1, 'before')
    const { positions, duplicate, queued } = await a.appendTo([log2, plain, log1, log3], 'to four')
    assert.deepEqual([...positions].map(([name, { offset }]) => [name, offset]).sort(), [[log1, 2], [log2, 1], [log3, 1]])
    assert.deepEqual([duplicate, queued], [false, false])
    await a.append(log2, 'after')
    await until(() => b.received.length === 5)
    const received = b.received.map(({ payload, target, position, shared }) => [payload.toString(), target.name, position?.offset, shared])
    assert.deepEqual(
      received.slice(1, 4).sort(), [['to four', log1, 2, true], ['to four', log2, 1, true], ['to four', plain, undefined, true]],
      'nothing between its copies'
    )
    assert.deepEqual([received[0], received[4]], [['before', log1, 1, false], ['after', log2, 2, false]])
    assert.equal(new Set(b.received.slice(1, 4).map(({ origin, sequence }) => `${origin} ${sequence}`)).size, 1)
    for (const [name, expected] of [
      [log1, 'before,to four'], [log2, 'to four,after'], [log3, 'to four'], [plain, '']
    ] as const) {
      const { messages } = await b.backplane.history(name, logStart, 10)
      assert.equal(messages.map(({ payload }) => payload.toString()).join(), expected, name)
      for (const { target } of messages) assert.deepEqual(target, group(name))
    }
    const [stored] = (await b.backplane.history(log2, undefined, 10)).messages
    assert.deepEqual(stored?.position, positions.get(log2))
  })

  rule('messages to several groups have one order in all of them, whoever sends them and however the groups are ordered', async start => {
    const instances = [await start(), await start(), await start()]
    const names = together('log-1', 'log-2', 'log-3')
    const [log1 = '', log2 = '', log3 = ''] = names
    for (const { backplane } of instances) for (const name of names) await backplane.subscribe(group(name))
    const targets = [[log1, log2], [log2, log1], [log3, log1, log2], [log1], [log2, log3], [log3]]
    const sent = instances.flatMap((one, index) => Array.from({ length: 120 }, async (_, n) => {
      const to = targets[(n + index) % targets.length] ?? []
      await one.appendTo(to, `${index}:${n}`, { maxMessages: 1_000 })
      return to.length
    }))
    const copies = (await Promise.all(sent)).reduce((sum, count) => sum + count, 0)
    await until(() => instances.every(({ received }) => received.length === copies))
    const [first, ...others] = instances.map(
      ({ received }) => received.map(({ target, payload }) => `${target.name} ${payload.toString()}`)
    )
    for (const other of others) assert.deepEqual(other, first)
    const logs = await Promise.all(names.map(
      async name => (await instances[0]?.backplane.history(name, logStart, 1_000))?.messages.map(({ payload }) => payload.toString()) ?? []
    ))
    for (const one of logs) {
      for (const other of logs) {
        const [here, there] = [new Set(one), new Set(other)]
        assert.deepEqual(one.filter(text => there.has(text)), other.filter(text => here.has(text)))
      }
      // A sender's messages to a group are in the order of its calls, also where some go to further groups.
      for (const index of [0, 1, 2]) {
        const numbers = one.filter(text => text.startsWith(`${index}:`)).map(text => Number(text.slice(2)))
        assert.deepEqual(numbers, [...numbers].sort((a, b) => a - b))
      }
    }
    assert.deepEqual(instances.flatMap(({ gaps }) => gaps), [])
  })

  rule('an idempotency key holds for all groups of a call', async start => {
    const a = await start()
    for (const name of ['log-1', 'log-2', 'log-3']) await a.backplane.subscribe(group(name))
    const first = await a.appendTo(['log-1', 'log-2'], 'pay', { key: 'order 17' })
    const again = await a.appendTo(['log-1', 'log-2'], 'pay', { key: 'order 17' })
    assert.deepEqual([first.duplicate, again.duplicate], [false, true])
    assert.deepEqual([...again.positions].sort(), [...first.positions].sort())
    // A group that has not got it yet does.
    const more = await a.appendTo(['log-3', 'log-2'], 'pay', { key: 'order 17' })
    assert.equal(more.duplicate, false)
    assert.deepEqual(more.positions.get('log-2'), first.positions.get('log-2'))
    assert.equal(more.positions.get('log-3')?.offset, 1)
    await until(() => a.received.length === 3)
    assert.deepEqual(a.received.map(({ target }) => target.name).sort(), ['log-1', 'log-2', 'log-3'])
  })

  rule('a log with large messages is read in pages of limited bytes, each from where the last one ended', async start => {
    const a = await start()
    const sizes = [10, 100_000, 100_000, 100_000, 400_000, 20, 20, 150_000, 30]
    for (const [index, size] of sizes.entries()) await a.append('log', String(index).padEnd(size))
    const pages = async (since: LogPosition | undefined, limit: number): Promise<number[][]> => {
      const read: number[][] = []
      for (let from = since; ;) {
        const { messages, gap, before, more } = await a.backplane.history('log', from, limit)
        assert.equal(gap, undefined)
        if (from !== undefined && from.epoch !== '') assert.deepEqual(before, from)
        const bytes = messages.reduce((sum, { payload }) => sum + payload.length, 0)
        assert.ok(bytes <= maxPageBytes || messages.length === 1, `${bytes} bytes`)
        read.push(messages.map(({ payload }) => Number(payload.toString('latin1', 0, 2))))
        from = messages.at(-1)?.position
        if (!more) return read
      }
    }
    const all = await pages(logStart, 100)
    assert.deepEqual(all.flat(), sizes.map((_, index) => index))
    assert.ok(all.length >= 4, `${all.length} pages`)
    assert.deepEqual((await pages(undefined, 3)).flat(), [6, 7, 8])
    assert.ok((await pages(logStart, 1)).every(page => page.length === 1))
  })

  rule('an idempotency key stores a message once, whoever repeats it', async start => {
    const [a, b] = [await start(), await start()]
    await b.backplane.subscribe(group('log'))
    const first = await a.append('log', 'pay', { key: 'order 17' })
    const again = await b.append('log', 'pay', { key: 'order 17' })
    const other = await a.append('log', 'pay', { key: 'order 18' })
    const elsewhere = await a.append('log-2', 'pay', { key: 'order 17' })
    assert.deepEqual(again.position, first.position)
    assert.deepEqual([first, again, other, elsewhere].map(({ duplicate }) => duplicate), [false, true, false, false])
    assert.equal(other.position.offset, 2)
    await until(() => b.received.length === 2)
  })

  rule('an instance that subscribes later starts at the end of the log', async start => {
    const [a, b] = [await start(), await start()]
    await a.append('log', 'before')
    await b.backplane.subscribe(group('log'))
    assert.equal(b.backplane.position('log')?.offset, 1)
    await a.append('log', 'after')
    await until(() => b.received.length === 1)
    assert.deepEqual(b.texts, ['after'])
  })

  rule('memberships are seen by every instance, with what is known of the member', async start => {
    const [a, b] = [await start(), await start()]
    const [first, second] = [
      await a.join('lobby', undefined, { userId: 'u1', info: { name: 'Zoë', tags: [1, null] }, joinedAt: 42 }), await b.join('lobby')
    ]
    for (const { backplane } of [a, b]) {
      assert.equal(await backplane.count('lobby'), 2)
      const members = await backplane.members('lobby')
      assert.deepEqual(members.map(({ connectionId }) => connectionId).sort(), [first, second].sort())
      assert.deepEqual(members.find(({ connectionId }) => connectionId === first), {
        connectionId: first, instanceId: a.instanceId, joinedAt: 42, userId: 'u1', info: { name: 'Zoë', tags: [1, null] }
      })
      assert.equal(members.find(({ connectionId }) => connectionId === second)?.userId, undefined)
    }
    await a.leave('lobby', first)
    assert.equal(await b.backplane.count('lobby'), 1)
    await b.leave('lobby', second)
    assert.equal(await a.backplane.count('lobby'), 0)
    assert.deepEqual(await a.backplane.members('lobby'), [])
  })

  rule('storing a membership again, or a leave of someone who is not there, changes nothing', async start => {
    const a = await start()
    const id = await a.join('lobby')
    for (let n = 0; n < 5; n++) await a.backplane.syncMember('lobby', id)
    await a.backplane.syncMember('lobby', a.newId())
    await a.backplane.syncMember('nobody', a.newId())
    assert.equal(await a.backplane.count('lobby'), 1)
    assert.equal(await a.backplane.count('nobody'), 0)
  })

  rule('a group of 1,200 members joined at once counts 1,200, and none when they left', async start => {
    const [a, b] = [await start(), await start()]
    const ids = await Promise.all(Array.from({ length: 1200 }, async (_, n) => await (n % 2 === 0 ? a : b).join('big')))
    assert.equal(await a.backplane.count('big'), 1200)
    assert.equal((await b.backplane.members('big')).length, 1200)
    await Promise.all(ids.map(async (id, n) => await (n % 2 === 0 ? a : b).leave('big', id)))
    assert.equal(await b.backplane.count('big'), 0)
  })

  rule('after thousands of joins and leaves in any order the counts are exact', async start => {
    const instances = [await start(), await start()]
    const present = new Map<string, Set<string>>()
    const pending: Array<Promise<unknown>> = []
    let seed = 7
    const random = (below: number): number => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
      return Math.floor(seed / 65_536) % below
    }
    for (let n = 0; n < 3000; n++) {
      const one = instances[random(2)] ?? instances[0] as Instance
      const id = `${one.instanceId}.${random(20)}`
      const name = `g${random(10)}`
      const members = present.get(name) ?? new Set()
      present.set(name, members)
      if (members.delete(id)) {
        pending.push(one.leave(name, id))
      } else {
        members.add(id)
        pending.push(one.join(name, id))
      }
      if (n % 50 === 0) await Promise.all(pending.splice(0))
    }
    await Promise.all(pending)
    for (const [name, members] of present) {
      assert.equal(await instances[0]?.backplane.count(name), members.size)
      assert.deepEqual(
        (await instances[1]?.backplane.members(name) ?? []).map(({ connectionId }) => connectionId).sort(), [...members].sort()
      )
    }
  })

  rule('an instance that closes takes its memberships and subscriptions with it, and nobody else\'s', async start => {
    const [a, b] = [await start(), await start()]
    await Promise.all([a, b].map(async one => await one.backplane.subscribe(group('lobby'))))
    await Promise.all([a, b].flatMap(one => ['lobby', 'den'].map(async name => await one.join(name))))
    await a.backplane.close()
    await a.backplane.close()
    assert.equal(await b.backplane.count('lobby'), 1)
    assert.equal(await b.backplane.count('den'), 1)
    await b.publish(group('lobby'), 'still here')
    await until(() => b.received.length === 1)
    assert.deepEqual(a.texts, [])
  })

  rule('a stream is one text that grows, and its group is told in the same step', async start => {
    const [a, b] = [await start(), await start()]
    if (a.backplane.streams === undefined) return
    await b.backplane.subscribe(group('talk'))
    const stream = { group: 'talk', id: 'ü:1', epoch: 'e1' }
    assert.equal(await b.backplane.streams?.read(stream, 0), undefined)
    assert.equal(await a.writeStream(stream, 0, 'Grüße', { head: '{"by":"a"}' }), 'written')
    assert.equal(await a.writeStream(stream, 7, ', Welt'), 'written')
    assert.equal(await a.writeStream(stream, 7, ', Welt'), 'written', 'a call may be repeated')
    const read = await b.backplane.streams?.read(stream, 7)
    assert.deepEqual([read?.epoch, read?.head, read?.end, read?.bytes, read?.silent], ['e1', '{"by":"a"}', undefined, 13, false])
    assert.equal(read?.text.toString(), ', Welt')
    assert.deepEqual(await b.backplane.streams?.list('talk'), ['ü:1'])
    assert.equal(await a.writeStream(stream, 13, '!', { end: { state: 'done', json: '1' } }), 'written')
    await until(() => b.received.length >= 4)
    assert.deepEqual(b.texts, ['Grüße', ', Welt', ', Welt', '!'])
    assert.deepEqual((await b.backplane.streams?.read(stream, 99))?.end, { state: 'done', json: '1' })
    assert.equal((await b.backplane.streams?.read(stream, 0))?.text.toString(), 'Grüße, Welt!')
    assert.equal(await a.writeStream(stream, 14, 'late'), 'ended')
    assert.equal(await a.writeStream(stream, 13, '!', { end: { state: 'done', json: '1' } }), 'written', 'its end, again')
    assert.equal(b.received.length, 4)
  })

  rule('one stream with an id is open at a time, and a stream that is lost or was replaced takes no more text', async start => {
    const [a, b] = [await start(), await start()]
    if (a.backplane.streams === undefined) return
    const [one, other] = [{ group: 'talk', id: '1', epoch: 'e1' }, { group: 'talk', id: '1', epoch: 'e2' }]
    assert.equal(await a.writeStream(one, 0, 'x'), 'lost', 'nothing is made without a head')
    assert.equal(await a.writeStream(one, 0, 'one', { head: '{}' }), 'written')
    assert.equal(await b.writeStream(other, 0, 'two', { head: '{}' }), 'taken')
    assert.equal(await a.writeStream(one, 5, 'x'), 'lost', 'no hole is left in a text')
    assert.equal(await b.writeStream(one, 3, '', { onlyIfSilentMs: 60_000, end: { state: 'failed', json: '' } }), 'lives')
    await new Promise(resolve => setTimeout(resolve, 20))
    assert.equal(await b.writeStream(one, 3, '', { onlyIfSilentMs: 1, end: { state: 'failed', json: '2' } }), 'written')
    assert.equal(await a.writeStream(one, 3, ' more'), 'ended')
    assert.equal(await b.writeStream(other, 0, 'two', { head: '{}' }), 'written', 'the id is free again')
    assert.equal(await a.writeStream(one, 3, ' more'), 'replaced')
    assert.equal((await a.backplane.streams?.read(one, 0))?.text.toString(), 'two')
  })

  rule('a group keeps a limited number of streams, each for its time', async start => {
    const a = await start()
    if (a.backplane.streams === undefined) return
    const open = async (n: number, keepMs: number): Promise<unknown> => {
      return await a.writeStream({ group: 'talk', id: String(n), epoch: 'e' }, 0, '', { head: '{}', keepMs })
    }
    for (let n = 1; n < maxStreamsPerGroup; n++) assert.equal(await open(n, 60_000), 'written')
    assert.equal(await open(0, 60_000), 'written')
    assert.equal(await open(1_000, 60_000), 'full')
    assert.equal((await a.backplane.streams?.list('talk'))?.length, maxStreamsPerGroup)
    assert.equal(await a.writeStream({ group: 'talk', id: '0', epoch: 'e' }, 0, '', { keepMs: 200 }), 'written', 'its time is short now')
    await until(async () => await open(1_000, 60_000) === 'written')
    await until(async () => await a.backplane.streams?.read({ group: 'talk', id: '0' }, 0) === undefined)
    assert.ok(!(await a.backplane.streams?.list('talk'))?.includes('0'))
  })

  rule('after close it says that it is out, at once', async start => {
    const a = await start()
    assert.equal(a.backplane.state, 'up')
    assert.deepEqual(a.backplane.problems, [])
    await a.backplane.close()
    assert.equal(a.backplane.state, 'down')
    await assert.rejects(a.publish(group('lobby'), 'x'), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
  })

  rule('a secret, where there is one, is the same for all instances, whoever asks when', async start => {
    const [a, b] = [await start(), await start()]
    if (a.backplane.secret === undefined || b.backplane.secret === undefined) return
    const [first, second] = await Promise.all([a.backplane.secret('one'), b.backplane.secret('another')])
    assert.ok(first === 'one' || first === 'another')
    assert.equal(second, first)
    await a.backplane.close()
    assert.equal(await b.backplane.secret('a third'), first)
    const late = await start()
    assert.equal(await late.backplane.secret?.('a fourth'), first)
  })

  rule('who was put out of a group is known to all instances, and outlives the one that said so', async start => {
    const [a, b] = [await start(), await start()]
    if (a.backplane.revoke === undefined) return
    const position = { epoch: 'e'.repeat(8), offset: 5, nonce: 77 }
    await a.backplane.revoke('lobby', ['u:ann', 's:1'], { at: 1_000, position }, 60_000)
    await b.backplane.revoke?.('lobby', ['u:ann'], { at: 2_000 }, 60_000)
    await a.backplane.close()
    const late = await start()
    const revoked = async (...names: string[]): Promise<Revocation | undefined> => await late.backplane.revoked?.('lobby', names)
    assert.deepEqual(await revoked('u:ann', 's:1'), { at: 2_000, position: undefined })
    assert.deepEqual(await revoked('s:1', 's:3'), { at: 1_000, position })
    assert.equal(await revoked('s:3', 'u:bob'), undefined)
    assert.equal(await late.backplane.revoked?.('kitchen', ['u:ann']), undefined)
  })

  rule('the latest time that somebody was put out of a group counts, also where an instance tells late of an earlier one', async start => {
    const [a, b] = [await start(), await start()]
    if (a.backplane.revoke === undefined) return
    const position = { epoch: 'e'.repeat(8), offset: 5, nonce: 77 }
    await a.backplane.revoke('lobby', ['u:ann'], { at: 2_000, position }, 60_000)
    await b.backplane.revoke?.('lobby', ['u:ann', 's:1'], { at: 1_000 }, 60_000)
    assert.deepEqual(await b.backplane.revoked?.('lobby', ['u:ann']), { at: 2_000, position })
    assert.deepEqual(await b.backplane.revoked?.('lobby', ['s:1']), { at: 1_000, position: undefined })
    await b.backplane.revoke?.('lobby', ['u:ann'], { at: 3_000 }, 60_000)
    assert.deepEqual(await a.backplane.revoked?.('lobby', ['u:ann']), { at: 3_000, position: undefined })
  })

  rule('an instance id that is taken is refused', async start => {
    const a = await start()
    await assert.rejects(start(a.instanceId), { code: 'WSG_INSTANCE_ID_TAKEN' })
    assert.equal(a.backplane.state, 'up')
  })
}

function group (name: string): Target {
  return { kind: 'group', name }
}

async function until (condition: () => boolean | Promise<boolean>, timeoutMs = 20_000): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!await condition()) {
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${condition.toString()}`)
    await new Promise(resolve => setTimeout(resolve, 2))
  }
}
