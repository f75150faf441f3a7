import t from 'tap'
import { FramedSession, type FramedConnection } from '../../../lib/connection/framed/session.ts'
import type { FramedInit } from '../../../lib/connection/init.ts'
import type { MessageQueue } from '../../../lib/connection/inbound/message-queue.ts'
import { until } from '../../helpers/until.ts'

const position = 'A'.repeat(24)

function session (helloTimeoutMs: number): { readonly framed: FramedSession, readonly sent: string[] } {
  const sent: string[] = []
  const connection = {
    id: 'i.1',
    userId: undefined,
    closed: false,
    outbound: { greeted () {}, encoding: { json: false } },
    log: { debug () {} },
    write (text: string) { sent.push(text) },
    closeForFault (code: number) { sent.push(String(code)) }
  }
  const init = { helloTimeoutMs, pingMs: 0, resumeMs: 0 }
  const queue = { takes: true } as MessageQueue
  return { framed: new FramedSession(connection as unknown as FramedConnection, { onMessage () {} }, init as FramedInit, queue), sent }
}

t.test('what a hello offers is taken once, and dropped when no join takes it soon', async t => {
  const { framed, sent } = session(40)
  framed.receive(Buffer.from(JSON.stringify({ type: 'hello', resume: { a: position, b: position }, grants: { a: 'proof' } })), false)
  t.match(JSON.parse(String(sent[0])), { type: 'welcome' })
  t.strictSame(framed.takeOffer('a'), { since: position, grant: 'proof' })
  t.equal(framed.takeOffer('a'), undefined)
  const started = performance.now()
  await until(() => performance.now() - started > 100)
  t.equal(framed.takeOffer('b'), undefined)
  framed.ended()
})

t.test('a connection that cannot be made known fails before its client says hello', async t => {
  const { framed } = session(10_000)
  await t.rejects(framed.opened(Promise.reject(new Error('not known'))), { message: 'not known' })
  t.equal(framed.helloReceived, false)
  framed.ended()
})
