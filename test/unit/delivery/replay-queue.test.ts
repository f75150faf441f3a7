import t from 'tap'
import { setImmediate as turn } from 'node:timers/promises'
import { ReplayQueue } from '../../../lib/delivery/replay-queue.ts'

t.test('a connection reads one page at a time, an instance 32, and who asks for many holds nobody up', async t => {
  const queue = new ReplayQueue()
  const started: string[] = []
  const release: Array<() => void> = []
  const running = new Map<object, number>()
  let most = 0
  const read = async (connection: object, name: string): Promise<string> => await queue.run(connection, async () => {
    started.push(name)
    running.set(connection, (running.get(connection) ?? 0) + 1)
    most = Math.max(most, release.length + 1)
    t.equal(running.get(connection), 1, 'its only one')
    await new Promise<void>(resolve => { release.push(resolve) })
    running.set(connection, 0)
    return name
  })
  const greedy = {}
  const pages = Array.from({ length: 50 }, async (_, n) => await read(greedy, `greedy ${n}`))
  const others = Array.from({ length: 40 }, async (_, n) => await read({}, `other ${n}`))
  await turn()
  t.equal(started.length, 32)
  t.strictSame(started.filter(name => name.startsWith('greedy')), ['greedy 0'])
  while (release.length > 0) {
    release.shift()?.()
    await turn()
  }
  t.strictSame(await Promise.all(pages), Array.from({ length: 50 }, (_, n) => `greedy ${n}`))
  await Promise.all(others)
  t.equal(most, 32)
  t.ok(started.indexOf('other 39') < started.indexOf('greedy 2'))
})

t.test('a page that cannot be read makes room for the next one', async t => {
  const queue = new ReplayQueue()
  const connection = {}
  const failed = queue.run(connection, async () => await Promise.reject(new Error('the log is out')))
  const next = queue.run(connection, async () => 'read')
  await t.rejects(failed, { message: 'the log is out' })
  t.equal(await next, 'read')
})
