// Whatever stands where a token may stand: nobody gets in but with the good one, and nothing is the server's fault.
import fc from 'fast-check'
import { connect } from 'node:net'
import t from 'tap'
import { WebSocket } from 'ws'
import { upgradeHead } from '../http/raw.ts'
import { attacked, fuzz } from './rig.ts'

const good = 'the-good-token'
// In the long form ann enters the empty room more often than a user may in a minute.
const limits = { tokens: false, newGroupsPerMinute: false } as const
const service = await attacked(t, { authenticate: token => token === good ? { userId: 'ann' } : null, limits }, app => {
  app.wsRoom('/room/:room', { group: ({ room }) => room, auth: { cookie: 'sid', query: 'token', allowedOrigins: () => true } })
})

const text = fc.oneof(
  fc.string(), fc.string({ unit: 'binary', maxLength: 30 }), fc.constantFrom(
    good, `${good} `, ` ${good}`, `"${good}"`, `${good},${good}`, encodeURIComponent(good), `%${good}`, 'null', 'undefined', 'true', '', '0'
  ),
  fc.integer({ min: 1, max: 4_000 }).map(size => 'x'.repeat(size)), fc.json()
)
const place = fc.constantFrom('authorization', 'bearer', 'basic', 'protocol', 'protocols', 'cookie', 'cookies', 'query', 'queries')
const input = fc.array(fc.record({ place, text }), { maxLength: 3 })

/** The status of an upgrade with the texts in their places. */
async function knock (tokens: ReadonlyArray<{ readonly place: string, readonly text: string }>): Promise<string> {
  const headers: Record<string, string> = {}
  let query = ''
  for (const { place, text } of tokens) {
    const bare = text.replace(/[^\x20-\x7e\x80-\xff]/g, '')
    switch (place) {
      case 'authorization': headers.Authorization = bare; break
      case 'bearer': headers.Authorization = `Bearer ${bare}`; break
      case 'basic': headers.Authorization = `Basic ${bare}`; break
      case 'protocol': headers['Sec-WebSocket-Protocol'] = `bearer, ${bare}`; break
      case 'protocols': headers['Sec-WebSocket-Protocol'] = bare; break
      case 'cookie': headers.Cookie = `sid=${bare}`; break
      case 'cookies': headers.Cookie = bare; break
      case 'query': query += `&token=${encodeURIComponent(text.replace(/[\ud800-\udfff]/g, ''))}`; break
      case 'queries': query += `&${bare.replace(/[^\x21-\x7e]/g, '')}`
    }
  }
  const socket = connect({ port: service.port, host: '127.0.0.1' })
  socket.on('error', () => {})
  socket.write(Buffer.from(upgradeHead(`/room/a?${query}`, headers), 'latin1'))
  try {
    return await new Promise((resolve, reject) => {
      socket.once('data', chunk => resolve(chunk.toString('latin1')))
      socket.once('close', () => reject(new Error('no answer')))
      setTimeout(() => reject(new Error(`no answer to ${JSON.stringify(headers)} ${query}`)), 10_000).unref()
    })
  } finally {
    socket.destroy()
  }
}

await fuzz(t, input, async tokens => {
  const answer = await knock(tokens)
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1])
  if (status === 101) {
    if (!tokens.some(({ text }) => text.includes(good))) throw new Error('let in without the token')
    // Who offers it as a protocol of its own asks for it.
    if (answer.includes(good) && !tokens.some(({ place }) => place === 'protocols')) throw new Error('the token came back')
  } else if (![400, 401, 404, 431].includes(status)) {
    throw new Error(`the answer is ${status}`)
  }
})

// In the place that comes later: a fresh token on an open connection.
await fuzz(t, fc.array(text.filter(token => token !== good && token !== ''), { minLength: 1, maxLength: 12 }), async tokens => {
  const socket = new WebSocket(`${service.url.replace('http', 'ws')}/room/a`, ['wsg.v1', 'bearer', good])
  const answers: string[] = []
  const code = await new Promise<number>((resolve, reject) => {
    socket.on('open', () => {
      socket.send('{"type":"hello"}')
      for (const [id, token] of tokens.entries()) socket.send(JSON.stringify({ type: 'token', id, token }))
      socket.send(JSON.stringify({ type: 'token', id: tokens.length, token: good }))
    })
    socket.on('message', (data: Buffer) => {
      const frame = JSON.parse(data.toString()) as { type: string, id?: number }
      if (frame.id === undefined) return
      answers.push(frame.type)
      if (frame.id === tokens.length) socket.close(1000)
    })
    socket.on('close', resolve)
    socket.on('error', reject)
  })
  const refused = tokens.length
  const expected = refused < 10 ? [...Array.from({ length: refused }, () => 'error'), 'ack'] : Array.from({ length: 9 }, () => 'error')
  if (code !== (refused < 10 ? 1000 : 4401)) throw new Error(`closed with ${code} after ${refused} bad tokens`)
  if (answers.slice(0, expected.length).join() !== expected.join()) throw new Error(`${refused} bad tokens: ${answers.join()}`)
})
await service.finish()
