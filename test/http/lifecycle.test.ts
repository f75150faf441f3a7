import t, { type Test } from 'tap'
import { setImmediate as turn } from 'node:timers/promises'
import type { Connection, ConnectionCallbacks, WebsocketGroupsOptions } from '../../plugin.ts'
import { connect, type TestClient } from '../helpers/client.ts'
import { until } from '../helpers/until.ts'
import { gate, service, type Service } from '../helpers/service.ts'

interface Running extends Service {
  readonly url: string
  readonly client: TestClient
  /** The server's side of `client`, once onConnect was reached. */
  connection (): Connection
  /** What onDisconnect was called with. */
  readonly ends: ReadonlyArray<{ readonly code: number, readonly reason: string }>
}

/** One service, one client. */
async function run (t: Test, callbacks: Partial<ConnectionCallbacks>, options?: WebsocketGroupsOptions): Promise<Running> {
  const built = await service(t, options)
  const ends: Array<{ readonly code: number, readonly reason: string }> = []
  let server: Connection | undefined
  built.app.get('/ws', { websocket: true }, built.app.wsHandler({
    onMessage () {},
    ...callbacks,
    async onConnect (connection, request) {
      server = connection
      await callbacks.onConnect?.(connection, request)
    },
    async onDisconnect (connection, closed) {
      ends.push(closed)
      await callbacks.onDisconnect?.(connection, closed)
    }
  }))
  const url = await built.listen()
  const client = connect(t, `${url}/ws`)
  const connection = (): Connection => {
    if (server === undefined) throw new Error('onConnect was not reached')
    return server
  }
  return { ...built, url, client, connection, ends }
}

/** Everything that is due on both sides is done: the service answers a later request. */
async function settled ({ app }: Running): Promise<void> {
  await until(() => app.registry.count() === 0)
  for (let i = 0; i < 10; i++) await turn()
}

/** The server has read all that the client sent before. */
async function roundTrip ({ ws }: TestClient): Promise<void> {
  const pong = new Promise(resolve => ws.once('pong', resolve))
  ws.ping()
  await pong
}

t.test('messages', async t => {
  t.test('those that arrive while onConnect waits are handled after it, in order', async t => {
    const ready = gate()
    const seen: unknown[] = []
    const running = await run(t, {
      async onConnect () {
        await ready.opened
        seen.push('connected')
      },
      onMessage (connection, data) {
        seen.push(data)
        connection.send(`got ${data.toString()}`)
      }
    })
    await running.client.opened
    for (let i = 0; i < 100; i++) running.client.send(String(i))
    await roundTrip(running.client)
    t.strictSame(seen, [])
    ready.open()
    await running.client.nextWhere(message => message === 'got 99')
    t.strictSame(seen, ['connected', ...Array.from({ length: 100 }, (_, i) => String(i))])
  })

  t.test('they are handled one at a time, in order, however long each takes', async t => {
    const seen: string[] = []
    let running = 0
    let most = 0
    const { client } = await run(t, {
      async onMessage (connection, data) {
        most = Math.max(most, ++running)
        for (let i = Number(data) % 3; i > 0; i--) await turn()
        running--
        seen.push(data.toString())
        if (data === '299') connection.send('done')
      }
    })
    await client.opened
    for (let i = 0; i < 300; i++) client.send(String(i))
    await client.next()
    t.equal(most, 1)
    t.strictSame(seen, Array.from({ length: 300 }, (_, i) => String(i)))
  })

  t.test('handlers that return at once and handlers that wait keep one order', async t => {
    const seen: string[] = []
    const { client } = await run(t, {
      onMessage (connection, data) {
        if (data === 'end') return connection.send('done')
        if (Number(data) % 2 === 0) return seen.push(data.toString())
        return turn().then(() => { seen.push(data.toString()) })
      }
    })
    await client.opened
    for (let i = 0; i < 50; i++) client.send(String(i))
    client.send('end')
    await client.next()
    t.strictSame(seen, Array.from({ length: 50 }, (_, i) => String(i)))
  })

  t.test('a text frame arrives as string, a binary frame as Buffer, also from the queue', async t => {
    const ready = gate()
    const seen: unknown[] = []
    const { client } = await run(t, {
      onConnect: async () => await ready.opened,
      onMessage (connection, data) {
        seen.push(data)
        connection.send(data)
      }
    })
    await client.opened
    client.send('grüße')
    client.send(Buffer.from([1, 2, 255]))
    client.send(Buffer.alloc(70_000, 7))
    client.send('')
    ready.open()
    t.strictSame([await client.next(), await client.next()], ['grüße', Buffer.from([1, 2, 255])])
    t.strictSame(await client.next(), Buffer.alloc(70_000, 7))
    t.equal(await client.next(), '')
    client.send(Buffer.from('direct'))
    t.strictSame(await client.next(), Buffer.from('direct'))
    t.strictSame(seen.map(one => typeof one), ['string', 'object', 'object', 'string', 'object'])
  })

  t.test('more than may wait before the connection is ready waits at the client, and is handled after it', async t => {
    const ready = gate()
    const seen: unknown[] = []
    const running = await run(
      t, { onConnect: async () => await ready.opened, onMessage: (_, data) => { seen.push(data) } }, { maxQueuedMessages: 10 }
    )
    await running.client.opened
    for (let i = 0; i < 30; i++) running.client.send(String(i))
    await until(() => running.app.registry.stats().socketsPaused === 1)
    ready.open()
    await until(() => seen.length === 30)
    t.strictSame(seen, Array.from({ length: 30 }, (_, i) => String(i)))
    t.match(running.app.registry.stats(), { queueOverflows: 0, socketsPaused: 0 })
  })

  t.test('what waits is limited in bytes too, but a single message may be as large as maxPayload allows', async t => {
    const ready = gate()
    const seen: number[] = []
    const running = await run(
      t, { onConnect: async () => await ready.opened, onMessage (_, data) { seen.push(data.length) } }, { maxQueuedBytes: 1_000 }
    )
    await running.client.opened
    running.client.send('x'.repeat(5_000))
    await roundTrip(running.client)
    ready.open()
    await until(() => seen.length === 1)

    const late = gate()
    const other = await run(t, { onMessage: async () => await late.opened }, { maxQueuedBytes: 1_000 })
    await other.client.opened
    for (let i = 0; i < 4; i++) other.client.send('x'.repeat(500))
    await until(() => other.app.registry.stats().socketsPaused === 1)
    late.open()
    await until(() => other.app.registry.stats().messagesReceived === 4)
  })
})

t.test('onConnect', async t => {
  t.test('a throw closes with 1011, undoes the memberships, and tells the client nothing', async t => {
    const seen: unknown[] = []
    const running = await run(t, {
      async onConnect (connection) {
        await running.app.registry.join(connection, 'lobby')
        throw new Error('secret: the database is at 10.0.0.1')
      },
      onMessage: (_, data) => { seen.push(data) }
    })
    running.client.ws.once('open', () => running.client.send('early'))
    t.strictSame(await running.client.closed, { code: 1011, reason: 'internal error' })
    await settled(running)
    t.equal(await running.app.registry.groupCount('lobby'), 0)
    t.strictSame(running.client.messages, [])
    t.strictSame(seen, [])
    t.match(running.ends, [{ code: 1011 }])
    t.match(running.logs.find(line => line.msg === 'onConnect failed'), {
      level: 50, connectionId: running.connection().id, err: { message: /secret/ }
    })
  })

  t.test('an error may say how to close', async t => {
    const running = await run(
      t, { onConnect () { throw Object.assign(new Error('full'), { closeCode: 4003, closeReason: 'room is full' }) } }
    )
    t.strictSame(await running.client.closed, { code: 4003, reason: 'room is full' })
    await settled(running)
    t.match(running.ends, [{ code: 4003, reason: 'room is full' }])
  })

  t.test('a close code or reason that cannot be sent falls back to 1011', async t => {
    for (const wish of [{ closeCode: 1006 }, { closeCode: 4000, closeReason: 'é'.repeat(100) }, { closeCode: '4000' }]) {
      const running = await run(t, { onConnect () { throw Object.assign(new Error('no'), wish) } })
      t.match(await running.client.closed, { code: 1011 })
    }
  })

  t.test('something thrown that is no Error is still logged and closed', async t => {
    const running = await run(t, {
      onConnect () {
        // eslint-disable-next-line no-throw-literal
        throw 'just text'
      }
    })
    t.match(await running.client.closed, { code: 1011 })
    t.match(running.logs.find(line => line.msg === 'onConnect failed'), { err: { message: /just text/ } })
  })
})

t.test('onError', async t => {
  const fail = { onMessage (): void { throw new Error('bad message') } }

  t.test('true keeps the connection', async t => {
    const errors: string[] = []
    const { client, ends } = await run(t, {
      async onMessage (connection, data) {
        if (data === 'bad') throw new Error('bad message')
        connection.send(`got ${data.toString()}`)
      },
      async onError (_, error) {
        await turn()
        errors.push(error.message)
        return true
      }
    })
    await client.opened
    client.send('bad')
    client.send('good')
    t.equal(await client.next(), 'got good')
    t.strictSame(errors, ['bad message'])
    t.strictSame(ends, [])
  })

  t.test('anything else closes it with 1011, and what waits is dropped', async t => {
    for (const answer of [false, undefined, 'true' as unknown as boolean]) {
      const seen: unknown[] = []
      const running = await run(t, {
        onMessage (_, data) {
          seen.push(data)
          throw new Error('bad message')
        },
        onError: async () => {
          await turn()
          return answer
        }
      })
      await running.client.opened
      running.client.send('1')
      running.client.send('2')
      t.strictSame(await running.client.closed, { code: 1011, reason: 'internal error' })
      t.strictSame(seen, ['1'])
    }
  })

  t.test('without it an error is logged and closes with 1011', async t => {
    const running = await run(t, fail)
    await running.client.opened
    running.client.send('x')
    t.match(await running.client.closed, { code: 1011 })
    t.match(running.logs.find(line => line.msg === 'onMessage failed'), { level: 50, err: { message: 'bad message' } })
  })

  t.test('its own error is logged and closes with 1011', async t => {
    const running = await run(t, { ...fail, onError () { throw new Error('worse') } })
    await running.client.opened
    running.client.send('x')
    t.match(await running.client.closed, { code: 1011 })
    t.match(running.logs.find(line => line.msg === 'onError failed'), { level: 50, err: { message: 'worse' } })
  })

  t.test('it hears of a socket error, which closes the connection whatever it answers', async t => {
    const errors: Error[] = []
    const running = await run(t, {
      onError (_, error) {
        errors.push(error)
        return true
      }
    }, { options: { maxPayload: 100 } })
    await running.client.opened
    running.client.send('x'.repeat(101))
    t.match(await running.client.closed, { code: 1009 })
    await settled(running)
    t.match(errors, [{ code: 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH' }])
    t.equal(running.ends.length, 1)
  })
})

t.test('the end', async t => {
  t.test('onDisconnect runs exactly once, whoever ends the connection and however', async t => {
    interface Way {
      readonly ends: (running: Running) => void
      readonly callbacks?: Partial<ConnectionCallbacks>
      readonly options?: WebsocketGroupsOptions
      readonly code: number
      readonly reason?: string
    }
    const ways: Record<string, Way> = {
      'the client closes': { ends: ({ client }) => { void client.close(4001, 'bye') }, code: 4001, reason: 'bye' },
      'the client closes without a code': { ends: ({ client }) => { void client.close() }, code: 1005 },
      'the client vanishes': { ends: ({ client }) => client.terminate(), code: 1006 },
      'the client vanishes without a trace': {
        ends: ({ client }) => { client.ws.pause() },
        options: { heartbeatIntervalMs: 20 },
        code: 1006
      },
      'the server closes': { ends: running => running.connection().close(4002, 'enough'), code: 4002, reason: 'enough' },
      'the server terminates': { ends: running => running.connection().terminate(), code: 1006 },
      'both close at once': {
        ends (running) {
          void running.client.close(4001)
          running.connection().close(4002)
        },
        code: 4002
      },
      'onConnect throws': { ends () {}, callbacks: { onConnect () { throw new Error('no') } }, code: 1011 },
      'onMessage throws': { ends: ({ client }) => client.send('x'), callbacks: { onMessage () { throw new Error('no') } }, code: 1011 },
      'the client breaks the protocol': {
        ends: ({ client }) => client.send('x'.repeat(200)), options: { options: { maxPayload: 100 } }, code: 1009
      },
      'the instance shuts down': { ends: ({ app }) => { void app.close() }, code: 1001 }
    }
    for (const [name, { ends, callbacks = {}, options, code, reason }] of Object.entries(ways)) {
      await t.test(name, async t => {
        const running = await run(t, callbacks, options)
        await running.client.opened
        await until(() => running.connection())
        ends(running)
        await until(() => running.ends.length > 0)
        await settled(running)
        await running.app.close()
        t.equal(running.ends.length, 1)
        t.match(running.ends[0], { code, ...(reason === undefined ? {} : { reason }) })
        t.equal(running.connection().closed, true)
      })
    }
  })

  t.test('onDisconnect waits for an onConnect that is under way when the client leaves', async t => {
    const ready = gate()
    const seen: string[] = []
    const running = await run(t, {
      async onConnect () {
        await ready.opened
        seen.push('connected')
      },
      onDisconnect () { seen.push('disconnected') }
    })
    await running.client.opened
    await until(() => running.connection())
    running.client.terminate()
    await settled(running)
    t.strictSame(seen, [])
    ready.open()
    await until(() => seen.length === 2)
    t.strictSame(seen, ['connected', 'disconnected'])
  })

  t.test('messages that came before the client closed are handled in order, then onDisconnect; memberships are gone at once', async t => {
    const ready = gate()
    const seen: unknown[] = []
    const running = await run(t, {
      async onConnect (connection) {
        await running.app.registry.join(connection, 'lobby')
        await ready.opened
      },
      async onMessage (connection, data) {
        await turn()
        seen.push(data, connection.closed, connection.send('too late'))
      },
      onDisconnect (connection) { seen.push(connection.groups) }
    })
    await running.client.opened
    await until(async () => await running.app.registry.groupCount('lobby') === 1)
    for (const message of ['1', '2', '3']) running.client.send(message)
    await running.client.close()
    await settled(running)
    t.equal(await running.app.registry.groupCount('lobby'), 0)
    t.strictSame(seen, [])
    ready.open()
    await until(() => seen.length === 10)
    t.strictSame(seen, ['1', true, false, '2', true, false, '3', true, false, ['lobby']])
  })

  t.test('what waits when the server closes is dropped', async t => {
    const seen: unknown[] = []
    const ready = gate()
    const running = await run(t, {
      async onMessage (connection, data) {
        seen.push(data)
        connection.close(4000)
        await ready.opened
      }
    })
    await running.client.opened
    for (let i = 0; i < 10; i++) running.client.send(String(i))
    await running.client.closed
    ready.open()
    await settled(running)
    await until(() => running.ends.length === 1)
    t.strictSame(seen, ['0'])
  })

  t.test('an error in onDisconnect is logged', async t => {
    const running = await run(t, { onDisconnect () { throw new Error('too late') } })
    await running.client.opened
    await running.client.close()
    await until(() => running.logs.some(line => line.msg === 'onDisconnect failed'))
  })

  t.test('an onConnect that finds its client gone is no error', async t => {
    const ready = gate()
    const running = await run(t, {
      async onConnect (connection) {
        await ready.opened
        await running.app.registry.join(connection, 'lobby')
      }
    })
    await running.client.opened
    await until(() => running.connection())
    running.client.terminate()
    await settled(running)
    ready.open()
    await until(() => running.ends.length === 1)
    t.strictSame(running.logs.filter(line => line.level >= 40), [])
    t.equal(await running.app.registry.groupCount('lobby'), 0)
  })
})

t.test('connection', async t => {
  t.test('its signal aborts when the socket closes, also when it is asked for later', async t => {
    let signal: AbortSignal | undefined
    const running = await run(t, { onConnect (connection) { signal = connection.signal } })
    await running.client.opened
    await until(() => signal)
    t.equal(signal?.aborted, false)
    t.equal(running.connection().signal, signal)
    await running.client.close()
    await until(() => signal?.aborted)

    const other = await run(t, {})
    await other.client.opened
    await until(() => other.connection())
    await other.client.close()
    await settled(other)
    t.equal(other.connection().signal.aborted, true)
  })

  t.test('sends text, bytes and JSON, and says whether the socket took it', async t => {
    const running = await run(t, {})
    await running.client.opened
    const connection = await until(() => running.connection())
    t.equal(connection.send('text'), true)
    t.equal(connection.send(new Uint8Array([1, 2])), true)
    t.equal(connection.sendJson({ a: 1 }), true)
    t.strictSame(
      [await running.client.next(), await running.client.next(), await running.client.next()], ['text', Buffer.from([1, 2]), '{"a":1}']
    )
    for (const data of [undefined, null, 1, {}, new ArrayBuffer(1), []]) {
      t.throws(() => connection.send(data as unknown as string), { code: 'WSG_DATA_INVALID' })
    }
    t.throws(() => connection.sendJson(undefined), { code: 'WSG_DATA_INVALID' })
    t.throws(() => connection.sendJson(() => {}), { code: 'WSG_DATA_INVALID' })
    connection.close()
    t.equal(connection.closed, true)
    t.equal(connection.send('late'), false)
  })

  t.test('close checks its code and reason, and does nothing the second time', async t => {
    const running = await run(t, {})
    await running.client.opened
    const connection = await until(() => running.connection())
    t.throws(() => connection.close(1006), { code: 'WSG_CLOSE_CODE_INVALID' })
    t.throws(() => connection.close(1000, 'é'.repeat(100)), { code: 'WSG_CLOSE_CODE_INVALID' })
    t.equal(connection.closed, false)
    connection.close(4000, 'first')
    connection.close(4001, 'second')
    t.strictSame(await running.client.closed, { code: 4000, reason: 'first' })
  })

  t.test('its log says which connection it is', async t => {
    const running = await run(t, { onConnect (connection) { connection.log.info('hello') } })
    await running.client.opened
    t.match(await until(() => running.logs.find(line => line.msg === 'hello')), { connectionId: running.connection().id, reqId: /req/ })
  })

  t.test('a client that reads too slowly is closed with 4008 and terminated soon after', async t => {
    const running = await run(t, {}, { maxBufferedBytes: 65_536 })
    await running.client.opened
    const connection = await until(() => running.connection())
    running.client.ws.pause()
    const megabyte = Buffer.alloc(1_048_576)
    let sent = 0
    while (connection.send(megabyte)) {
      sent++
      if (sent > 100) throw new Error('the send was never refused')
      await turn()
    }
    t.ok(connection.bufferedBytes < 3 * megabyte.length, `${connection.bufferedBytes} bytes`)
    t.equal(connection.closed, true)
    await until(() => running.ends.length > 0)
    t.match(running.ends, [{ code: 4008, reason: 'client reads too slowly' }])
    t.equal(running.app.registry.stats().slowConsumersClosed, 1)
  })

  t.test('a message larger than maxBufferedBytes reaches a client that reads', async t => {
    const running = await run(t, {}, { maxBufferedBytes: 1_000 })
    await running.client.opened
    const connection = await until(() => running.connection())
    connection.send('x'.repeat(5_000_000))
    t.equal((await running.client.next()).length, 5_000_000)
  })

  t.test('is closed with 4401 when its identity ends', async t => {
    const { app, listen } = await service(t, { authenticate: () => ({ userId: 'u', expiresAt: Date.now() + 100 }) })
    app.get('/ws', { websocket: true, preHandler: app.wsAuth() }, app.wsHandler({ onMessage () {} }))
    const client = connect(t, `${await listen()}/ws`, { protocols: ['bearer', 'x'] })
    await client.opened
    t.strictSame(await client.closed, { code: 4401, reason: 'token expired' })
  })

  t.test('does not keep the upgrade request', async t => {
    const { setFlagsFromString } = await import('node:v8')
    const { runInNewContext } = await import('node:vm')
    setFlagsFromString('--expose_gc')
    const collect = runInNewContext('gc') as () => void
    const requests: Array<WeakRef<object>> = []
    const running = await run(t, { onConnect: (_, request) => { requests.push(new WeakRef(request), new WeakRef(request.raw)) } })
    await running.client.opened
    await until(() => requests.length === 2)
    await until(() => {
      collect()
      return requests.every(request => request.deref() === undefined)
    })
    t.equal(running.connection().closed, false)
  })
})
