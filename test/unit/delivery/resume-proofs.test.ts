import t from 'tap'
import { formatPosition, logStart, parsePosition } from '../../../lib/backplane/position.ts'
import { ProofKeys, type ResumeProofs } from '../../../lib/delivery/resume-proofs.ts'
import { WebsocketGroupsError } from '../../../lib/errors.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'

noUnhandled(t)

const [a, b, c] = ['a', 'b', 'c'].map(letter => letter.repeat(32)) as [string, string, string]
const position = { epoch: 'e'.repeat(8), offset: 5, nonce: 77 }
const since = formatPosition(position)
const unreachable = (): never => { throw new Error('no backplane is asked') }
const withSecret = async (secret: string | string[]): Promise<ResumeProofs> => await new ProofKeys({}, secret, unreachable).proofs()

t.test('a grant proves where a session joined a group, and nothing else', async t => {
  const proofs = await withSecret(a)
  const grant = String(proofs.grant('g', 'session', position))
  t.match(grant, /^[\w-]{46}$/)
  t.strictSame((await withSecret(a)).floor('g', 'session', since, grant), position, 'to any instance with the key')
  t.equal(proofs.floor('h', 'session', since, grant), undefined)
  t.equal(proofs.floor('g', 'other', since, grant), undefined)
  t.equal(proofs.floor('g', undefined, since, grant), undefined)
  t.equal((await withSecret(b)).floor('g', 'session', since, grant), undefined)
  const moved = formatPosition({ ...position, offset: 1 }) + grant.slice(24)
  for (const wrong of ['', 'x', moved, grant.slice(0, -1), `${grant}AAAA`, since, 'A'.repeat(46), undefined]) {
    t.equal(proofs.floor('g', 'session', since, wrong), undefined)
  }
})

t.test('the beginning of a log is sealed for its group, and is the beginning to everybody', async t => {
  const proofs = await withSecret(a)
  const sealed = proofs.format('g', logStart)
  t.match(sealed, /^[\w-]{24}$/)
  t.not(sealed, formatPosition(logStart))
  t.equal(parsePosition(sealed), logStart)
  t.equal(proofs.floor('g', undefined, sealed, undefined), logStart)
  t.equal(proofs.floor('h', undefined, sealed, undefined), undefined)
  t.equal((await withSecret(b)).floor('g', undefined, sealed, undefined), undefined)
  for (const made of [formatPosition(logStart), `${'A'.repeat(11)}${'B'.repeat(12)}A`]) {
    t.equal(proofs.floor('g', undefined, made, undefined), undefined)
  }
  t.equal(proofs.format('g', position), since, 'other positions prove themselves')
})

t.test('of several secrets the first one signs, and all are accepted', async t => {
  const [old, both, fresh] = [await withSecret(a), await withSecret([b, a]), await withSecret(b)]
  const grantOf = (proofs: ResumeProofs): string | undefined => proofs.grant('g', 's', position)
  t.strictSame(both.floor('g', 's', since, grantOf(old)), position)
  t.equal(both.floor('g', 's', old.format('g', logStart), undefined), logStart)
  t.strictSame(fresh.floor('g', 's', since, grantOf(both)), position)
  t.equal(old.floor('g', 's', since, grantOf(both)), undefined)
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
  t.equal(none.grant('g', 's', position), undefined, 'nothing can be proven yet')
  t.equal(none.format('g', logStart), formatPosition(logStart))
  failure = undefined
  const grant = (await one.proofs()).grant('g', 's', position)
  t.strictSame((await two.proofs()).floor('g', 's', since, grant), position)
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
  t.strictSame(renewed.floor('g', 's', since, grant), position, 'what was signed before is still good')
  t.strictSame((await withSecret(c)).floor('g', 's', since, renewed.grant('g', 's', position)), position)

  failure = new Error('a backplane of the user')
  now += 60_000
  t.strictSame((await one.proofs()).floor('g', 's', since, grant), position)
  await new Promise(resolve => setImmediate(resolve))
  t.strictSame(failures, [failure])
})
