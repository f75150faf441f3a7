import t from 'tap'
import { EventEmitter } from 'node:events'
import type { LocalConnection } from '../../../lib/connection/connection.ts'
import type { ConnectionHost } from '../../../lib/connection/init.ts'
import type { InboundLimits } from '../../../lib/connection/inbound/message-buffer.ts'
import type { Metrics } from '../../../lib/metrics.ts'
import type { ConnectionCallbacks } from '../../../lib/route-types.ts'
import { connectionOn } from '../../helpers/fakes.ts'
import { recordedLog, type RecordedLine } from '../../helpers/loggers.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { until } from '../../helpers/until.ts'

/** A socket whose peer is dead: nothing happens to it by itself. */
class DeadSocket extends EventEmitter {
  readyState = 1
  bufferedAmount = 0
  sent: unknown[] = []
  closedWith: unknown[] = []
  terminated = 0
  send (data: unknown, options: unknown): void { this.sent.push([data, options]) }
  terminate (): void { this.terminated++; this.readyState = 2 }
  ping (): void { this.sent.push('ping') }
  pause (): void {}
  resume (): void {}
  close (code: number, reason: string): void {
    this.closedWith.push([code, reason])
    this.readyState = 2
  }
}

interface Built {
  readonly connection: LocalConnection
  readonly socket: DeadSocket
  readonly lines: readonly RecordedLine[]
  readonly metrics: Metrics
  start (): void
}

function build (
  callbacks: Partial<ConnectionCallbacks> = {}, inHost: Partial<ConnectionHost<LocalConnection>> = {}, inLimits: Partial<InboundLimits> = {}
): Built {
  const socket = new DeadSocket()
  const { log, lines } = recordedLog()
  const limits = { maxQueuedMessages: 10, maxQueuedBytes: 1_000_000, maxBufferedBytes: 1_000, options: {}, ...inLimits }
  const built = connectionOn(socket, { log, callbacks: { onMessage () {}, ...callbacks }, host: inHost, limits })
  return { ...built, socket, lines }
}

t.test('forceClosed ends a connection whose close event never comes, once', async t => {
  const ends: unknown[] = []
  const { connection, socket, start, metrics } = build({ onDisconnect (_, closed) { ends.push(closed) } })
  start()
  const before = connection.finished
  connection.forceClosed(1001, 'gone')
  await before
  await connection.finished
  t.strictSame(ends, [{ code: 1001, reason: 'gone' }])
  t.equal(socket.terminated, 1)
  t.equal(connection.closed, true)
  connection.forceClosed(1012, 'again')
  socket.emit('close', 1006, Buffer.alloc(0))
  socket.emit('message', Buffer.from('late'), false)
  await connection.finished
  t.equal(ends.length, 1)
  t.equal(metrics.connectionsClosed, 1)
  t.equal(metrics.messagesReceived, 0)
})

t.test('what the server said when it closed is what onDisconnect hears, not that nobody answered', async t => {
  const ends: unknown[] = []
  const { connection, start } = build({ onDisconnect (_, closed) { ends.push(closed) } })
  start()
  connection.close(4000, 'enough')
  connection.forceClosed(1001, 'shutdown')
  await connection.finished
  t.strictSame(ends, [{ code: 4000, reason: 'enough' }])
})

t.test('onConnect waits until the connection is known, and messages wait for both', async t => {
  const seen: unknown[] = []
  let known = (): void => {}
  const entered = new Promise<void>(resolve => { known = resolve })
  const { socket, start } = build(
    { onConnect () { seen.push('connect') }, onMessage: (_, data) => seen.push(data) }, { enter: () => entered }
  )
  start()
  socket.emit('message', Buffer.from('hi'), false)
  await Promise.resolve()
  t.strictSame(seen, [])
  known()
  await until(() => seen.length === 2)
  t.strictSame(seen, ['connect', 'hi'])
})

t.test('a connection that this side closes before onConnect is heard of by no callback, and still finishes', async t => {
  const seen: unknown[] = []
  const callbacks = {
    onConnect: () => seen.push('connect'), onMessage: () => seen.push('message'), onDisconnect: () => seen.push('disconnect')
  }
  const { connection, socket, start } = build(callbacks)
  connection.close(1001)
  start()
  socket.emit('message', Buffer.from('x'), false)
  socket.emit('close', 1001, Buffer.alloc(0))
  await connection.finished
  t.strictSame(seen, [])

  const failed = build(callbacks, { enter: async () => { throw new Error('no') } })
  failed.start()
  await until(() => failed.socket.closedWith.length === 1)
  failed.socket.emit('close', 1006, Buffer.alloc(0))
  await failed.connection.finished
  t.strictSame(seen, [])
  t.strictSame(failed.socket.closedWith, [[1011, 'internal error']])
})

t.test('memberships that cannot be released are logged, and onDisconnect runs', async t => {
  let ended = 0
  const { connection, socket, start, lines } = build({ onDisconnect () { ended++ } }, { release: async () => { throw new Error('bug') } })
  start()
  socket.emit('close', 1006, Buffer.alloc(0))
  await connection.finished
  t.equal(ended, 1)
  t.match(lines, [{ msg: 'memberships could not be released' }])
  t.equal(lines.length, 1)
})

t.test('memberships that cannot be released while the socket takes its time to end are logged at that end', async t => {
  noUnhandled(t)
  const { connection, socket, start, lines } = build({}, { release: async () => { throw new Error('bug') } })
  start()
  connection.close()
  await new Promise(resolve => setImmediate(resolve))
  socket.emit('close', 1000, Buffer.alloc(0))
  await connection.finished
  t.match(lines, [{ msg: 'memberships could not be released' }])
})

t.test('onDisconnect comes after the memberships are released', async t => {
  const seen: string[] = []
  const { connection, socket, start } = build({ onDisconnect () { seen.push('disconnect') } }, {
    release: async () => {
      await new Promise(resolve => setImmediate(resolve))
      seen.push('released')
    }
  })
  start()
  socket.emit('close', 1000, Buffer.alloc(0))
  await connection.finished
  t.strictSame(seen, ['released', 'disconnect'])
})

t.test('a socket error is told to onError after a callback under way, and before onDisconnect', async t => {
  const seen: string[] = []
  let finish = (): void => {}
  const { connection, socket, start } = build({
    onMessage: async () => await new Promise<void>(resolve => { finish = resolve }),
    onError (_, error) { seen.push(error.message) },
    onDisconnect () { seen.push('disconnect') }
  })
  start()
  await until(() => {
    socket.emit('message', Buffer.from('x'), false)
    return true
  })
  socket.emit('error', new Error('broken pipe'))
  socket.emit('close', 1006, Buffer.alloc(0))
  await Promise.resolve()
  t.strictSame(seen, [])
  finish()
  await connection.finished
  t.strictSame(seen, ['broken pipe', 'disconnect'])
})

t.test('without onError a socket error is logged', async t => {
  const { connection, socket, start, lines } = build()
  start()
  socket.emit('error', new Error('broken pipe'))
  socket.emit('close', 1006, Buffer.alloc(0))
  await connection.finished
  t.match(lines, [{ msg: 'socket failed' }])
  t.equal(lines.length, 1)
})

t.test('what was handled no longer counts as waiting', async t => {
  const seen: number[] = []
  let next = (): void => {}
  const { socket, start } = build({
    async onMessage (_, data) {
      await new Promise<void>(resolve => { next = resolve })
      seen.push(data.length)
    }
  }, {}, { maxQueuedBytes: 100 })
  start()
  await new Promise(resolve => setImmediate(resolve))
  for (let i = 0; i < 3; i++) socket.emit('message', Buffer.alloc(40), true)
  for (let handled = 1; handled <= 20; handled++) {
    next()
    await until(() => seen.length === handled)
    socket.emit('message', Buffer.alloc(40), true)
  }
  t.strictSame(socket.closedWith, [])
})

t.test('a promise that is a function is awaited like any other', async t => {
  const heard: unknown[] = []
  const { socket, start } = build({
    onMessage: () => Object.assign(() => {}, { then (_: unknown, reject: (error: Error) => void) { reject(new Error('no')) } }),
    onError (_, error) {
      heard.push(error.message)
      return true
    }
  })
  start()
  await new Promise(resolve => setImmediate(resolve))
  socket.emit('message', Buffer.from('x'), false)
  await until(() => heard.length > 0)
  t.strictSame(heard, ['no'])
})

t.test('a message after the close event is not handled', async t => {
  const { connection, socket, start, metrics } = build()
  start()
  await new Promise(resolve => setImmediate(resolve))
  socket.emit('close', 1000, Buffer.alloc(0))
  socket.emit('message', Buffer.from('late'), false)
  await connection.finished
  t.equal(metrics.messagesReceived, 0)
  t.equal(metrics.connectionsClosed, 1)
})

t.test('a small message that waits does not hold the large chunk it came in', async t => {
  const seen: Buffer[] = []
  let ready = (): void => {}
  const { socket, start } = build(
    { onConnect: async () => await new Promise<void>(resolve => { ready = resolve }), onMessage: (_, data) => seen.push(data as Buffer) }
  )
  start()
  const chunk = Buffer.alloc(65_536, 7)
  socket.emit('message', chunk.subarray(10, 14), true)
  socket.emit('message', chunk, true)
  ready()
  await until(() => seen.length === 2)
  t.strictSame(seen[0], Buffer.from([7, 7, 7, 7]))
  t.ok(Number(seen[0]?.buffer.byteLength) <= Buffer.poolSize, 'small messages share memory')
  t.equal(seen[1]?.buffer, chunk.buffer)
})

t.test('write looks at the backlog before it sends, and closes for it once', async t => {
  const { connection, socket, metrics } = build()
  socket.bufferedAmount = 1_000
  t.equal(connection.write(Buffer.from('a'), false), true)
  socket.bufferedAmount = 1_001
  t.equal(connection.write(Buffer.from('b'), true), false)
  t.equal(connection.write(Buffer.from('c'), true), false)
  t.strictSame(socket.sent, [[Buffer.from('a'), { binary: false }]])
  t.strictSame(socket.closedWith, [[4008, 'client reads too slowly']])
  t.equal(metrics.slowConsumersClosed, 1)
  await until(() => socket.terminated === 1)
})

t.test('messages and pongs are signs of life, and a socket that closes is not pinged', async t => {
  const { connection, socket, start } = build()
  start()
  const look = (): string => connection.pulse.look({}, 1_000)
  t.strictSame([look(), look()], ['ping', 'wait'])
  socket.emit('message', Buffer.from('x'), false)
  t.strictSame([look(), look(), look()], ['wait', 'wait', 'terminate'])
  socket.emit('pong', Buffer.alloc(0))
  t.equal(look(), 'ping')
  connection.ping()
  connection.close()
  connection.ping()
  t.equal(socket.sent.length, 1)
})

t.test('groups are those it is in; after the close a frozen list of those it was in', async t => {
  const { connection, socket } = build()
  connection.groupJoined('a')
  t.strictSame(connection.groups, ['a'])
  socket.emit('close', 1000, Buffer.alloc(0))
  connection.groupLeft('a')
  t.equal(connection.groupCount, 0)
  t.strictSame(connection.groups, ['a'])
  t.ok(Object.isFrozen(connection.groups))
})
