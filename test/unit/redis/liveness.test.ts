import t from 'tap'
import { Liveness, lookIntervalMs } from '../../../lib/backplane/redis/link/liveness.ts'

t.test('a ping is due where nothing came since the last look but the answer to a ping', async t => {
  const liveness = new Liveness()
  liveness.look(0)
  t.equal(liveness.look(0).ping, true, 'nothing came')
  liveness.sign()
  t.equal(liveness.look(7).ping, true, 'what came was the answer to the ping')
  liveness.sign()
  liveness.sign()
  t.equal(liveness.look(21).ping, false, 'something else came, too')
  t.equal(liveness.look(21).ping, true, 'and nothing since')
  liveness.sign()
  liveness.sign()
  t.equal(liveness.look(35).ping, false)
  liveness.sign()
  t.equal(liveness.look(42).ping, false, 'no ping was sent that this could answer')
})

t.test('silence counts from the last sign, from the last byte, and not while this process stood still', async t => {
  let now = 1_000_000
  t.intercept(performance, 'now', { value: () => now })
  const liveness = new Liveness()
  const silentMs = (received: number, afterMs = lookIntervalMs): number => {
    now += afterMs
    return liveness.look(received).silentMs
  }
  t.equal(silentMs(0), 1_000)
  t.equal(silentMs(0), 2_000)
  t.equal(silentMs(1), 0, 'a part of an answer came')
  t.equal(silentMs(1), 1_000)
  liveness.sign()
  t.equal(silentMs(1), 1_000)
  t.equal(silentMs(1), 2_000)
  t.equal(silentMs(1, 2_500), 0, 'answers may wait in the socket, and are read after the timer')
  t.equal(silentMs(1), 1_000)
})
