// Whatever a client of the framed protocol says: what the protocol allows is answered, what it does not closes with 4400.
import fc from 'fast-check'
import t from 'tap'
import { WebSocket } from 'ws'
import { attacked, fuzz } from './rig.ts'

// A short grace: else each conversation would be given a list of all those of the last ten seconds.
const service = await attacked(t, { presenceGraceMs: 100, authenticate: token => token === 'good' ? { userId: 'ann' } : null }, app => {
  app.wsRoom('/room/:room', {
    group: ({ room }) => room,
    auth: { required: false },
    presence: true,
    history: 3,
    mayJoin: (_, group) => !group.startsWith('not '),
    mayRead: (_, group) => !group.startsWith('not ')
  })
})

interface Frame { readonly text: string, readonly allowed: boolean, readonly answered?: number | undefined }

function optional<Value> (value: fc.Arbitrary<Value>): fc.Arbitrary<Value | undefined> { return fc.oneof(fc.constant(undefined), value) }

const id = optional(fc.integer({ min: 0, max: 1_000 }))
const position = fc.oneof(
  fc.constant('A'.repeat(24)),
  fc.uint8Array({ minLength: 18, maxLength: 18 }).map(bytes => Buffer.from(bytes).toString('base64url'))
)
const group = fc.oneof(fc.constantFrom('a', 'b', 'not this', '__proto__', 'constructor'), fc.string({ minLength: 1, maxLength: 20 }))
const unknownFields = fc.dictionary(fc.string({ maxLength: 5 }).map(name => `x-${name}`), fc.jsonValue(), { maxKeys: 3 })

function allowed (frame: Record<string, unknown>): Frame {
  return { text: JSON.stringify(frame), allowed: true, answered: frame.id as number | undefined }
}

const request = fc.oneof(
  fc.record({ id, data: fc.string() }).map(fields => ({ type: 'message', ...fields })),
  fc.record({ id, data: fc.base64String() }).map(fields => ({ type: 'message', binary: true, ...fields })),
  fc.record({ id, group, since: fc.oneof(fc.constant(undefined), position) }).map(fields => ({ type: 'join', ...fields })),
  fc.record({ id, group }).map(fields => ({ type: 'leave', ...fields })),
  fc.record({ id, data: fc.jsonValue() }).map(fields => ({ type: 'message', json: true, ...fields })),
  fc.record({
    id,
    group,
    since: optional(fc.oneof(position, fc.string())),
    before: optional(fc.oneof(position, fc.string())),
    limit: optional(fc.integer({ min: 1 })),
    reverse: optional(fc.boolean())
  }).map(fields => ({ type: 'history', ...fields })),
  // Refused, as no client here has a user; ten of them would close.
  fc.record({ id, token: fc.string().filter(token => token !== 'good') }).map(fields => ({ type: 'token', ...fields })),
  fc.constant({ type: 'ping' }),
  fc.record({ type: fc.string().map(name => `unknown-${name}`) })
)
const good = fc.tuple(request, unknownFields).map(([fields, more]) => allowed({ ...more, ...fields }))

const wrongType = fc.oneof(fc.boolean(), fc.double(), fc.constant(null), fc.array(fc.jsonValue(), { maxLength: 2 }), fc.constant({}))
const isFrame = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && typeof (value as { type?: unknown }).type === 'string'
const bad: fc.Arbitrary<Frame> = fc.oneof(
  fc.string().filter(text => { try { JSON.parse(text); return false } catch { return true } }),
  fc.jsonValue().filter(value => !isFrame(value)).map(value => JSON.stringify(value)),
  wrongType.map(data => JSON.stringify({ type: 'message', data })),
  wrongType.map(name => JSON.stringify({ type: 'join', group: name })),
  wrongType.map(name => JSON.stringify({ type: 'leave', group: name })),
  wrongType.map(token => JSON.stringify({ type: 'token', token })),
  fc.constantFrom('x', '!', '=', 'A', 'AA=A').map(data => JSON.stringify({ type: 'message', binary: true, data })),
  fc.oneof(
    fc.string(), fc.double({ noInteger: true, noNaN: true, noDefaultInfinity: true })
  ).map(wrong => JSON.stringify({ type: 'message', data: '', id: wrong })),
  fc.constant(JSON.stringify({ type: 'hello' }))
).map(text => ({ text, allowed: false }))

const hello = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      session: fc.oneof(fc.constant(undefined), fc.string()),
      resume: fc.oneof(fc.constant(undefined), fc.dictionary(fc.constantFrom('a', 'b', 'c'), position))
    }).map(fields => allowed({ type: 'hello', ...fields }))
  },
  { weight: 1, arbitrary: bad.filter(({ text }) => text !== '{"type":"hello"}') },
  { weight: 1, arbitrary: good.filter(({ text }) => !text.includes('"type":"ping"')).map(frame => ({ ...frame, allowed: false })) },
  {
    weight: 1,
    arbitrary: fc.dictionary(fc.constantFrom('a', 'b'), wrongType, { minKeys: 1 }).map(
      resume => ({ text: JSON.stringify({ type: 'hello', resume }), allowed: false })
    )
  }
)
const further = fc.oneof({ weight: 8, arbitrary: good }, { weight: 1, arbitrary: bad })
const input: fc.Arbitrary<Frame[]> = fc.tuple(hello, fc.array(further, { maxLength: 8 })).map(([first, rest]) => [first, ...rest])

interface Told { readonly frames: ReadonlyArray<{ readonly type: string, readonly id?: number }>, readonly code: number | undefined }

/** Says it all, and resolves with what came back: when the server closed, or answered a last ping. */
async function converse (frames: readonly Frame[]): Promise<Told> {
  const socket = new WebSocket(`${service.url.replace('http', 'ws')}/room/x`, ['wsg.v1'])
  const told: Array<{ type: string, id?: number }> = []
  return await new Promise((resolve, reject) => {
    const late = (): void => reject(new Error(`no end: told ${JSON.stringify(told).slice(0, 500)} for ${JSON.stringify(frames)}`))
    const timer = setTimeout(late, 20_000)
    const end = (code?: number): void => {
      clearTimeout(timer)
      resolve({ frames: told, code })
      socket.close()
    }
    socket.on('open', () => { for (const { text } of [...frames, { text: '{"type":"message","data":"","id":9999}' }]) socket.send(text) })
    socket.on('message', (data: Buffer) => {
      const frame = JSON.parse(data.toString()) as { type: string, id?: number }
      told.push(frame)
      if (frame.id === 9_999) end()
    })
    socket.on('close', end)
    socket.on('error', reject)
  })
}

const sameName = (text: string): string => text.length > 200 ? `${text.slice(0, 200)}…` : text

await fuzz(t, input, async frames => {
  const { frames: told, code } = await converse(frames)
  const wrong = frames.findIndex(({ allowed }) => !allowed)
  if (wrong === -1 && code !== undefined) throw new Error(`closed with ${code}, though all was allowed`)
  if (wrong !== -1 && code !== 4400) throw new Error(`not closed with 4400 but with ${code} for ${sameName(frames[wrong]?.text ?? '')}`)
  if (wrong !== -1) return
  const answers = told.filter(({ type }) => ['ack', 'error', 'history'].includes(type)).map(({ id }) => id)
  const asked = frames.map(({ answered }) => answered).filter(id => id !== undefined)
  if (answers.join() !== [...asked, 9_999].join()) throw new Error(`asked ${asked.join()}, answered ${answers.join()}`)
})
await service.finish()
