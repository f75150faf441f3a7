import t from 'tap'
import { Oracle } from './oracle.ts'

function position (epoch: number, offset: number): string {
  const bytes = Buffer.alloc(18)
  bytes.writeUInt32BE(epoch, 4)
  bytes.writeUIntBE(offset, 8, 6)
  bytes.writeUInt32BE(1_000 * epoch + offset, 14)
  return bytes.toString('base64url')
}

/** Where messages stand that had no answer when the first log was lost, and later ones: message, log, offset. */
const everywhere: ReadonlyArray<readonly [id: string, epoch: number, offset: number]> = [
  ['b', 1, 2], ['c', 2, 1], ['d', 2, 2], ['b', 2, 3], ['f', 2, 4]
]

/**
 * The log of group `e` had the messages a and b when it was lost. The next one has c, d, b again, whose answer was lost as well, and f.
 * Returns what the oracle, which knows of `places`, objects to in what a raw connection was told: `told`, messages and what became of the
 * connection. It joined before a and b were sent, or later if `told` says so.
 */
function judge (told: string, places = everywhere): string[] {
  let now = 0
  const oracle = new Oracle(() => (now += 1_000))
  const heard = oracle.connected('raw', false)
  const tell = (word: string): void => {
    const notices: Readonly<Record<string, object>> = { joined: { id: 'raw', in: 'cluster' }, gap: { gap: 'e', reason: 'epoch' } }
    oracle.raw(heard, ['e'], JSON.stringify(notices[word] ?? { id: word }))
  }
  const words = told.split(' ')
  const joinsLate = words[0] === 'joined'
  if (!joinsLate) tell('joined')
  for (const id of ['a', 'b']) oracle.sent(id, ['e'])
  oracle.acked('a', position(1, 1))
  oracle.dataLost()
  if (joinsLate) tell('joined')
  for (const id of ['c', 'd', 'f']) oracle.sent(id, ['e'])
  for (const [id, epoch, offset] of places) oracle.acked(id, position(epoch, offset))
  for (const word of joinsLate ? words.slice(1) : words) tell(word)
  heard.live = true
  oracle.finish([])
  return oracle.violations
}

t.test('a message that was stored anew came from the log that its connection was in', t => {
  t.strictSame(judge('a b gap c d f'), [], 'from the one that was lost')
  t.strictSame(judge('a gap c d b f'), [], 'from the next one')
  const places = everywhere.filter(([, epoch]) => epoch === 2)
  t.strictSame(judge('a b gap c d f', places), [], 'which nobody can tell')
  t.end()
})

t.test('nor does it hide what is wrong with the others', t => {
  t.match(judge('a b gap d c f'), [/^reordered: raw got c at e .* 1 after/])
  t.match(judge('a gap c b d f'), [/^reordered: raw got d at e .* 2 after/])
  t.match(judge('a b gap c f'), [/^lostSilently: .*, and never d at e 2/])
  t.match(judge('a gap c d f'), [/^lostSilently: .*, and never b at e 3/])
  t.match(judge('a b c d f'), [/^lostSilently: raw got c at e .* 1 after .* 2$/])
  t.end()
})

t.test('a connection is not owed what was sent before it joined, and stored anew after', t => {
  t.strictSame(judge('joined c d f'), [])
  t.match(judge('joined c f'), [/^lostSilently: .*, and never d at e 2/])
  t.end()
})
