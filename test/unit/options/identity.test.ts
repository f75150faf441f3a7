import t from 'tap'
import { defaultExpiresAt, defaultUserId, isSameUser, readIdentity, type IdentityOptions } from '../../../lib/options/identity.ts'
import type { Identity } from '../../../lib/types.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'

noUnhandled(t)

const defaults = { userId: defaultUserId, expiresAt: defaultExpiresAt }
const read = (
  identity: unknown, options: object = {}
): unknown => readIdentity(identity as Identity, { ...defaults, ...options } as IdentityOptions)
const instant = Date.parse('2031-05-06T07:08:09Z')

t.test('the user of an identity is its userId, sub or id', async t => {
  for (const [identity, userId] of [
    [{ userId: 'a', sub: 'b', id: 'c' }, 'a'], [{ sub: 'b', id: 'c' }, 'b'], [{ id: 7 }, '7'], [{ userId: null, id: 'c' }, 'c'],
    [{}, undefined], [{ id: null }, undefined]
  ] as const) t.strictSame(read(identity), { userId, expiresAt: undefined })
})

t.test('a user id that cannot be one refuses the identity', async t => {
  for (const userId of ['', 'x'.repeat(256), {}, true, NaN, 'a\u0000b', [], Promise.resolve('ann'), Promise.reject(new Error('late'))]) {
    t.throws(() => read({ userId }), { code: 'WSG_IDENTITY_INVALID', statusCode: 500 }, String(userId))
    t.throws(() => read({}, { userId: () => userId }), { code: 'WSG_IDENTITY_INVALID' }, String(userId))
  }
  t.throws(() => read({}, { userId: async () => 'ann' }), { message: /a promise: the option cannot be async/ })
})

t.test('an identity ends at its expiresAt in milliseconds, else at its exp in seconds', async t => {
  for (const identity of [
    { expiresAt: instant, exp: 7 }, { expiresAt: String(instant) }, { expiresAt: new Date(instant) }, { expiresAt: '2031-05-06T07:08:09Z' },
    { expiresAt: '2031-05-06T09:08:09.000+02:00' }, { exp: instant / 1_000 }, { exp: String(instant / 1_000) },
    { exp: ` ${instant / 1_000}.0 ` }, { exp: new Date(instant) },
    { exp: '2031-05-06T07:08:09Z' }, { expiresAt: null, exp: instant / 1_000 }
  ]) t.strictSame(read(identity), { userId: undefined, expiresAt: instant }, JSON.stringify(identity))
  t.strictSame(read({ expiresAt: '2031-05-06' }), { userId: undefined, expiresAt: Date.parse('2031-05-06') })
  for (const identity of [{}, { expiresAt: undefined }, { exp: null }]) {
    t.strictSame(read(identity), { userId: undefined, expiresAt: undefined })
  }
  t.strictSame(read({ expiresAt: Infinity }), { userId: undefined, expiresAt: Infinity })
})

t.test('an end that cannot be understood refuses the identity', async t => {
  for (const end of [
    '', 'tomorrow', 'soon 5', '0x10', '2031-13-45', '1/2/2031', NaN, new Date(NaN), true, false, {}, [instant], () => instant
  ]) {
    for (const name of ['expiresAt', 'exp']) {
      t.throws(() => read({ [name]: end }), { code: 'WSG_IDENTITY_INVALID', message: /the expiry must be/ }, `${name} ${String(end)}`)
    }
    t.throws(() => read({}, { expiresAt: () => end }), { code: 'WSG_IDENTITY_INVALID' })
  }
  t.throws(() => read({}, { expiresAt: async () => instant }), { message: /a promise: the option cannot be async/ })
  t.throws(() => read({}, { expiresAt: async () => { throw new Error('late') } }), { message: /a promise/ })
})

t.test('a fresh identity is the same user\'s by its user id, without one only if nothing but its times differs', async t => {
  const same = (old: unknown, fresh: unknown): boolean => isSameUser(old as Identity, fresh as Identity, defaults)
  t.ok(same({ userId: 'ann', name: 'Ann' }, { userId: 'ann', name: 'Anna' }))
  t.notOk(same({ userId: 'ann' }, { userId: 'bob' }))
  class Secretive {
    readonly #email: string
    constructor (email: string) { this.#email = email }
    get email (): string { return this.#email }
  }
  t.notOk(same(new Secretive('ann@x'), new Secretive('bob@x')), 'what a class hides cannot be compared')
  t.notOk(same(Object.create({ email: 'ann@x' }), Object.create({ email: 'bob@x' })))
  t.ok(same(Object.assign(Object.create(null), { email: 'ann@x' }), { __proto__: null, email: 'ann@x' }))
  t.notOk(same({ userId: 'ann' }, {}))
  t.notOk(same({ name: 'Ann' }, { userId: 'ann', name: 'Ann' }))
  t.ok(same({ name: 'Ann', roles: ['a'], exp: 5, iat: 1 }, { roles: ['a'], name: 'Ann', exp: 9, iat: 3, jti: 'x' }))
  t.notOk(same({ name: 'Ann', roles: ['a'] }, { name: 'Ann', roles: ['a', 'admin'] }))
  t.notOk(same({ email: 'a@x' }, { email: 'b@x' }))
  t.notOk(same(null, {}), 'nobody has become somebody')
})
