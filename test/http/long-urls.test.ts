// A name that was cut out of a long URL must not keep that URL in memory for as long as anything is known by the name.
import t from 'tap'
import { connect, type AddressInfo } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { until } from '../helpers/until.ts'
import { service } from '../helpers/service.ts'
import { clientFrame, upgradeHead } from './raw.ts'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

function heapBytes (): number {
  collectGarbage()
  return process.memoryUsage().heapUsed
}

t.test('rooms with made-up names and long URLs keep their names, not the URLs', async t => {
  // The helper keeps what is logged, and a line for each request has its URL.
  const { app, listen } = await service(t, {}, { disableRequestLogging: true })
  app.wsRoom('/ws/:room', { auth: false })
  await listen()
  const { port } = app.server.address() as AddressInfo
  const junk = 'j'.repeat(14_000)

  /** Comes with a long URL, says something that the log of the room keeps, and goes when the echo is there. */
  async function visit (room: string): Promise<void> {
    const socket = connect({ port, host: '127.0.0.1' })
    socket.write(Buffer.concat([Buffer.from(upgradeHead(`/ws/${room}?${junk}`)), clientFrame(1, 'm')]))
    let text = ''
    for await (const chunk of socket) {
      text += (chunk as Buffer).toString('latin1')
      if (text.endsWith('\x81\x01m')) break
    }
    if (!text.startsWith('HTTP/1.1 101 ')) throw new Error(`not let in: ${text.slice(0, 200)}`)
  }

  async function visitMany (name: string, count: number): Promise<void> {
    for (let n = 0; n < count; n += 50) {
      await Promise.all(Array.from({ length: 50 }, async (_, index) => await visit(`${name}-room-${n + index}`)))
    }
    await until(() => app.registry.count() === 0)
  }

  await visitMany('first', 300)
  const before = heapBytes()
  await visitMany('made-up', 1_000)
  t.equal(app.registry.stats().memoryLogs, 1_300)
  const grown = heapBytes() - before
  t.ok(grown < 7_000_000, `${grown} bytes for 1,000 logs of one byte; their URLs had 14 MB`)
})
