import t, { type Test } from 'tap'
import { Liveness, lookIntervalMs } from '../../../lib/backplane/redis/link/liveness.ts'

/** A link that is looked at every `lookIntervalMs`, and the time of that. */
function watched (t: Test): { look: (received: number, afterMs?: number) => { silentMs: number, ping: boolean }, liveness: Liveness } {
  let now = 1_000_000
  t.intercept(performance, 'now', { value: () => now })
  const liveness = new Liveness()
  return {
    liveness,
    look (received, afterMs = lookIntervalMs) {
      now += afterMs
      return liveness.look(received)
    }
  }
}

t.test('a quiet link is pinged every two seconds, and at each look while a ping is not answered', async t => {
  const { liveness, look } = watched(t)
  const pings = (received: number, looks: number): boolean[] => Array.from({ length: looks }, () => look(received).ping)
  t.strictSame(pings(0, 4), [false, false, false, true])
  liveness.sign()
  t.strictSame(pings(7, 4), [false, false, false, true], 'the answer to the ping came after the look that sent it')
  t.strictSame(pings(7, 4), [true, true, true, true], 'no answer')
  liveness.sign()
  t.strictSame(pings(14, 4), [false, false, false, true])
})

t.test('two links that are looked at together are pinged together, whatever came on one of them', async t => {
  const { liveness, look } = watched(t)
  for (let n = 0; n < 3; n++) look(0)
  liveness.sign()
  t.equal(look(0).ping, true, 'half a second ago')
  for (let n = 0; n < 3; n++) look(7)
  liveness.sign()
  t.equal(look(7, 200).ping, false, 'just now')
  for (let n = 0; n < 3; n++) t.equal(look(7).ping, false)
  t.equal(look(7).ping, true)
})

t.test('a link that brings something is not pinged', async t => {
  const { look } = watched(t)
  for (let received = 1; received < 20; received++) t.equal(look(received).ping, false)
})

t.test('silence counts from the last sign, from the last byte, and not while this process stood still', async t => {
  const { liveness, look } = watched(t)
  const silentMs = (received: number, afterMs?: number): number => look(received, afterMs).silentMs
  t.equal(silentMs(0), 500)
  t.equal(silentMs(0), 1_000)
  t.equal(silentMs(1), 0, 'a part of an answer came')
  t.equal(silentMs(1), 500)
  liveness.sign()
  t.equal(silentMs(1), 500)
  t.equal(silentMs(1), 1_000)
  t.equal(silentMs(1, 2_500), 0, 'answers may wait in the socket, and are read after the timer')
  t.equal(silentMs(1), 500)
})
