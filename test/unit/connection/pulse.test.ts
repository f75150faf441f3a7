import t from 'tap'
import { Pulse, type Traffic } from '../../../lib/connection/pulse.ts'

const intervalMs = 1_000
const mib = 1_048_576

/** A socket whose bytes the test counts: in, out, waiting in Node, and taken of the write under way. */
class Wire {
  readonly pulse = new Pulse()
  traffic: Traffic = { bytesRead: 0, bytesWritten: 0, writableLength: 0, _handle: { writeQueueSize: 0 } }

  look (change: Partial<Traffic> = {}): string {
    this.traffic = { ...this.traffic, ...change }
    return this.pulse.look(this.traffic, intervalMs)
  }

  /** How many intervals pass before the connection is given up. */
  untilGivenUp (): number {
    for (let looks = 1; looks < 10_000; looks++) if (this.look() === 'terminate') return looks
    return Infinity
  }
}

t.test('one ping at a time; no answer in two intervals ends it', async t => {
  const wire = new Wire()
  t.strictSame([wire.look(), wire.look(), wire.look()], ['ping', 'wait', 'terminate'])

  const answering = new Wire()
  for (let n = 0; n < 100; n++) {
    t.equal(answering.look(), 'ping')
    answering.pulse.ponged()
  }
  t.equal(answering.look(), 'ping')
  t.equal(answering.untilGivenUp(), 2)
})

t.test('bytes that come in are a sign of life, also when no message is complete and no ping is answered', async t => {
  const wire = new Wire()
  wire.look()
  for (let n = 1; n < 1_000; n++) t.equal(wire.look({ bytesRead: n }), 'wait')
  t.equal(wire.untilGivenUp(), 2)
})

t.test('so are bytes that go out of what waited, whole writes and parts of one', async t => {
  const wire = new Wire()
  wire.look({ bytesWritten: 100 * mib, writableLength: 99 * mib, _handle: { writeQueueSize: 98 * mib } })
  for (let left = 97; left > 0; left--) t.equal(wire.look({ _handle: { writeQueueSize: left * mib } }), 'wait')
  for (let left = 98; left > 0; left--) t.equal(wire.look({ writableLength: left * mib, _handle: { writeQueueSize: 0 } }), 'wait')
  t.ok(Number.isFinite(wire.untilGivenUp()))
})

t.test('what the operating system takes without anything waiting proves nothing', async t => {
  const wire = new Wire()
  wire.look()
  wire.pulse.ponged()
  wire.look()
  t.equal(wire.look({ bytesWritten: 1_000 }), 'wait')
  t.equal(wire.look({ bytesWritten: 2_000 }), 'terminate')
})

t.test('what was sent ahead of a ping gets its time on a slow link', async t => {
  const large = new Wire()
  large.look()
  large.pulse.ponged()
  t.equal(large.look({ bytesWritten: 200_000 }), 'ping')
  t.equal(large.untilGivenUp(), 2 + Math.floor(200_000 / 4_096))
  const huge = new Wire()
  huge.look()
  huge.pulse.ponged()
  huge.look({ bytesWritten: 500 * mib })
  t.equal(huge.untilGivenUp(), 2 + mib / 4_096, 'with an end')
})

t.test('on a link that was seen to be fast, a peer that vanishes out of heavy traffic is noticed soon', async t => {
  const wire = new Wire()
  for (let n = 0; n < 20; n++) {
    t.equal(wire.look({ bytesWritten: n * 500_000 }), 'ping')
    wire.pulse.ponged()
  }
  wire.look({ bytesWritten: 20 * 500_000 })
  t.ok(wire.untilGivenUp() <= 3)
})

t.test('messages are signs of life where a socket does not count its bytes', async t => {
  const pulse = new Pulse()
  pulse.look({}, intervalMs)
  for (let n = 0; n < 10; n++) {
    pulse.received()
    t.equal(pulse.look({}, intervalMs), 'wait')
  }
  t.strictSame([pulse.look({}, intervalMs), pulse.look({}, intervalMs)], ['wait', 'terminate'])
})
