import t from 'tap'
import { formatPosition, logStart, parsePosition } from '../../../lib/backplane/position.ts'
import { ProofKeys, type ResumeProofs } from '../../../lib/delivery/resume-proofs.ts'
import { WebsocketGroupsError } from '../../../lib/errors.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'

noUnhandled(t)

const [a, b, c] = ['a', 'b', 'c'].map(letter => letter.repeat(32)) as [string, string, string]
const position = { epoch: 'e'.repeat(8), offset: 5, nonce: 77 }
const since = formatPosition(position)
const joined = { position, at: 1_800_000_000_123 }
const unreachable = (): never => { throw new Error('no backplane is asked') }
const withSecret = async (secret: string | string[]): Promise<ResumeProofs> => await new ProofKeys({}, secret, unreachable).proofs()

t.test('a grant proves where and when a session joined a group, and nothing else', async t => {
  const proofs = await withSecret(a)
  const grant = String(proofs.grant('g', 'session', joined))
  t.match(grant, /^[\w-]{54}$/)
  t.strictSame((await withSecret(a)).granted('g', 'session', grant), joined, 'to any instance with the key')
  t.equal(proofs.granted('h', 'session', grant), undefined)
  t.equal(proofs.granted('g', 'other', grant), undefined)
  t.equal(proofs.granted('g', undefined, grant), undefined)
  t.equal((await withSecret(b)).granted('g', 'session', grant), undefined)
  const moved = formatPosition({ ...position, offset: 1 }) + grant.slice(24)
  const later = `${grant.slice(0, 31)}${grant[31] === 'A' ? 'B' : 'A'}${grant.slice(32)}`
  for (const wrong of ['', 'x', moved, later, grant.slice(0, -1), `${grant}AAAA`, since, 'A'.repeat(54), undefined]) {
    t.equal(proofs.granted('g', 'session', wrong), undefined)
  }
})

t.test('the beginning of a log is sealed for its group, and is the beginning to everybody', async t => {
  const proofs = await withSecret(a)
  const sealed = proofs.format('g', logStart)
  t.match(sealed, /^[\w-]{24}$/)
  t.not(sealed, formatPosition(logStart))
  t.equal(parsePosition(sealed), logStart)
  t.equal(proofs.isSealedStart('g', sealed), true)
  t.equal(proofs.isSealedStart('h', sealed), false)
  t.equal((await withSecret(b)).isSealedStart('g', sealed), false)
  for (const made of [formatPosition(logStart), `${'A'.repeat(11)}${'B'.repeat(12)}A`]) {
    t.equal(proofs.isSealedStart('g', made), false)
  }
  t.equal(proofs.format('g', position), since, 'other positions prove themselves')
})

t.test('of several secrets the first one signs, and all are accepted', async t => {
  const [old, both, fresh] = [await withSecret(a), await withSecret([b, a]), await withSecret(b)]
  const grantOf = (proofs: ResumeProofs): string | undefined => proofs.grant('g', 's', joined)
  t.strictSame(both.granted('g', 's', grantOf(old)), joined)
  t.equal(both.isSealedStart('g', old.format('g', logStart)), true)
  t.strictSame(fresh.granted('g', 's', grantOf(both)), joined)
  t.equal(old.granted('g', 's', grantOf(both)), undefined)
})

t.test('without a secret the instances share one through the backplane', async t => {
  let stored: string | undefined
  let now = 0
  let asked = 0
  const failures: unknown[] = []
  let failure: Error | undefined
  const backplane = {
    async secret (candidate: string) {
      asked++
      if (failure !== undefined) throw failure
      return (stored ??= candidate)
    }
  }
  const one = new ProofKeys(backplane, undefined, error => failures.push(error), () => now)
  const two = new ProofKeys(backplane, undefined, unreachable, () => now)
  failure = new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE')
  const none = await one.proofs()
  t.equal(none.grant('g', 's', joined), undefined, 'nothing can be proven yet')
  t.equal(none.format('g', logStart), formatPosition(logStart))
  failure = undefined
  const grant = (await one.proofs()).grant('g', 's', joined)
  t.strictSame((await two.proofs()).granted('g', 's', grant), joined)
  await one.proofs()
  t.equal(asked, 3, 'it is asked for once a minute')

  const drawn = stored
  stored = undefined                                // as after FLUSHALL
  now += 60_000
  await one.proofs()
  await new Promise(resolve => setImmediate(resolve))
  t.equal(stored, drawn, 'whoever has the key puts it back')

  stored = c                                        // drawn by a third one, before anybody could
  now += 60_000
  await one.proofs()
  await new Promise(resolve => setImmediate(resolve))
  const renewed = await one.proofs()
  t.strictSame(renewed.granted('g', 's', grant), joined, 'what was signed before is still good')
  t.strictSame((await withSecret(c)).granted('g', 's', renewed.grant('g', 's', joined)), joined)

  failure = new Error('a backplane of the user')
  now += 60_000
  t.strictSame((await one.proofs()).granted('g', 's', grant), joined)
  await new Promise(resolve => setImmediate(resolve))
  t.strictSame(failures, [failure])
})
