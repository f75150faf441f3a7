import t from 'tap'
import { JsonMessage } from '../../../lib/connection/inbound/json-message.ts'
import { encodeFrame, encodeMessage, parseFrame, type ParsedFrame } from '../../../lib/connection/framed/frame-codec.ts'

const position = 'AAAAAAAAAAAAAAAAAAAAAAAA'

function frameOf (text: string): ParsedFrame | undefined {
  const parsed = parseFrame(text)
  if (!parsed.ok) throw new Error(parsed.why)
  return parsed.frame
}

t.test('what a client may send is understood', async t => {
  t.strictSame(frameOf('{"type":"ping"}'), { type: 'ping' })
  t.strictSame(frameOf('{"type":"hello"}'), { type: 'hello', session: undefined, resume: new Map(), json: false })
  t.strictSame(frameOf(`{"type":"hello","session":"s","resume":{"a":"${position}","__proto__":"${position}"}}`),
    {
      type: 'hello',
      session: 's',
      resume: new Map([['a', { since: position, grant: undefined }], ['__proto__', { since: position, grant: undefined }]]),
      json: false
    })
  t.strictSame(frameOf(`{"type":"hello","resume":{"a":"${position}"},"grants":{"a":"proof","b":"of another"}}`),
    { type: 'hello', session: undefined, resume: new Map([['a', { since: position, grant: 'proof' }]]), json: false })
  t.strictSame(frameOf('{"type":"message","data":""}'), { type: 'message', id: undefined, data: '' })
  t.strictSame(
    frameOf('{"type":"message","data":"/+8=","binary":true,"id":-3}'), { type: 'message', id: -3, data: Buffer.from([255, 239]) }
  )
  t.strictSame(frameOf('{"type":"message","json":true,"data":null}'), { type: 'message', id: undefined, data: new JsonMessage(null, 42) })
  t.strictSame(frameOf('{"type":"message","data":"","binary":true}'), { type: 'message', id: undefined, data: Buffer.alloc(0) })
  t.strictSame(frameOf('{"type":"message","data":"AA==","binary":false}'), { type: 'message', id: undefined, data: 'AA==' })
  t.strictSame(frameOf('{"type":"join","group":"g","since":"x","id":0}'), {
    type: 'join', id: 0, group: 'g', since: 'x', grant: undefined, history: undefined
  })
  t.strictSame(frameOf('{"type":"join","group":"g","grant":"y","history":3}'), {
    type: 'join', id: undefined, group: 'g', since: undefined, grant: 'y', history: 3
  })
  t.strictSame(frameOf('{"type":"history","group":"g","before":"b","limit":2,"reverse":true,"id":1}'), {
    type: 'history', id: 1, group: 'g', query: { since: undefined, before: 'b', limit: 2, reverse: true }
  })
  t.strictSame(frameOf('{"type":"leave","group":"g"}'), { type: 'leave', id: undefined, group: 'g' })
  t.strictSame(frameOf('{"type":"token","token":"t"}'), { type: 'token', id: undefined, token: 't' })
})

t.test('types and fields that are not known are left alone', async t => {
  t.equal(frameOf('{"type":"dance","id":"x"}'), undefined)
  t.equal(frameOf('{"type":"toString"}'), undefined)
  t.strictSame(frameOf('{"type":"leave","group":"g","colour":1}'), { type: 'leave', id: undefined, group: 'g' })
})

t.test('whatever else comes is refused with a reason that fits into a close frame, and nothing throws', async t => {
  const wrong = [
    '', '{', 'null', '[]', '7', '"ping"', '{}', '{"type":1}', '{"type":null}',
    '{"type":"hello","session":1}', '{"type":"hello","resume":[]}', '{"type":"hello","resume":"x"}', '{"type":"hello","resume":{"a":1}}',
    '{"type":"hello","resume":{"a":"short"}}',
    `{"type":"hello","resume":{"a":"${'ä'.repeat(24)}"}}`, '{"type":"hello","grants":"x"}', '{"type":"hello","grants":[]}',
    `{"type":"hello","resume":{"a":"${position}"},"grants":{"a":1}}`, '{"type":"join","group":"g","grant":1}',
    ...['', 'x'.repeat(256), 'ä'.repeat(128), 'a\u0000b'].map(group => JSON.stringify({ type: 'hello', resume: { [group]: position } })),
    JSON.stringify({ type: 'hello', resume: Object.fromEntries(Array.from({ length: 101 }, (_, index) => [index, position])) }),
    '{"type":"message"}', '{"type":"message","data":1}', '{"type":"message","data":"x","id":"1"}', '{"type":"message","data":"x","id":1.5}',
    '{"type":"message","data":"x","id":null}',
    '{"type":"message","data":"x","id":1e300}', '{"type":"message","data":"x","binary":1}',
    ...['A', 'A===', '====', 'AA=A', 'AAAA ', 'A\\nAA', '!!!!', 'AAAAA'].map(data => `{"type":"message","data":"${data}","binary":true}`),
    '{"type":"join"}', '{"type":"join","group":1}', '{"type":"join","group":"g","since":1}', '{"type":"join","group":"g","id":[]}',
    '{"type":"leave"}',
    '{"type":"token"}', '{"type":"token","token":{}}', '{"type":"token","token":"t","id":true}'
  ]
  for (const text of wrong) {
    const parsed = parseFrame(text)
    t.notOk(parsed.ok, text)
    if (!parsed.ok) t.ok(parsed.why !== '' && Buffer.byteLength(parsed.why) <= 123)
  }
  t.ok(parseFrame(
    JSON.stringify({ type: 'hello', resume: Object.fromEntries(Array.from({ length: 100 }, (_, index) => [index, position])) })
  ).ok)
  t.notOk(parseFrame('['.repeat(200_000)).ok)
})

t.test('messages are encoded as bytes, with what is known of them', async t => {
  const decoded = (frame: Buffer): unknown => JSON.parse(frame.toString())
  t.strictSame(decoded(encodeMessage('tëxt\u2028', false)), { type: 'message', data: 'tëxt\u2028' })
  t.strictSame(
    decoded(encodeMessage(Buffer.from('tëxt'), false, { group: 'g', position })), { type: 'message', group: 'g', position, data: 'tëxt' }
  )
  t.strictSame(decoded(encodeMessage(new Uint8Array([9, 0, 255, 9]).subarray(1, 3), true, { group: 'g', copy: 'i:1' })), {
    type: 'message', group: 'g', copy: 'i:1', data: 'AP8=', binary: true
  })
  t.equal(encodeFrame({ type: 'joined', group: 'g', recovered: undefined }), '{"type":"joined","group":"g"}')
})
