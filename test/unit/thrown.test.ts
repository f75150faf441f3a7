import t from 'tap'
import { toError } from '../../lib/thrown.ts'
import { buildService } from '../helpers/bare-service.ts'

const { app: { log } } = buildService()
const fail = (): never => { throw new Error('do not read me') }
const unreadable = new Proxy({}, { get: fail, has: fail, getPrototypeOf: fail, ownKeys: fail })
const getter = (name: string): Error => Object.defineProperty(new Error('x'), name, { get: fail, enumerable: true })

t.test('an ordinary error stays the same, with all that belongs to it', async t => {
  const errors = [
    new Error('x'), new TypeError('x', { cause: new Error('y') }),
    Object.assign(new Error('x'), { code: 'E', statusCode: 400, details: { a: 1 } }),
    new AggregateError([new Error('y'), 'z']), Object.assign(new Error('x'), { cause: 'text', inner: new Error('y') })
  ]
  const circle = new Error('x')
  circle.cause = circle
  for (const error of [...errors, circle]) t.equal(toError(error), error)
})

t.test('errors that lead to each other in many ways are read a few times', async t => {
  let reads = 0
  const errors: Error[] = Array.from({ length: 5 }, () => Object.defineProperty(new Error('x'), 'code', { get: () => reads++ }))
  for (const error of errors) Object.assign(error, { cause: error, errors }, errors)
  t.equal(toError(errors[0]), errors[0])
  t.ok(reads <= 2 * errors.length, `${reads} reads`)
})

t.test('what is no error becomes one that says what it was', async t => {
  t.match(toError('out of cheese'), { message: 'a callback threw a non-Error value: out of cheese', cause: 'out of cheese' })
  for (const thrown of [undefined, null, 7, Symbol('x'), {}, Object.create(null), [], () => {}]) {
    t.equal(toError(thrown).message, `a callback threw a non-Error value: ${typeof thrown}`)
  }
})

t.test('an error of another realm says the same, and what only looks like an error does not', async t => {
  const { runInNewContext } = await import('node:vm')
  const foreign: unknown = runInNewContext("Object.assign(new Error('pay first'), { code: 'PAY', statusCode: 402, details: { price: 3 } })")
  t.notOk(foreign instanceof Error)
  const error = toError(foreign)
  t.ok(error instanceof Error)
  t.match(error, { message: 'pay first', code: 'PAY', statusCode: 402, details: { price: 3 }, cause: foreign })
  t.strictSame(Object.keys(toError(runInNewContext("new Error('only this')"))), [], 'it has no fields that are not there')
  t.notMatch(toError({ message: 'db-7.internal', statusCode: 402 }), { message: /db-7/ })
  t.notOk('statusCode' in toError({ message: 'db-7.internal', statusCode: 402 }))
})

t.test('details that cannot be read are left out, and the rest is told', async t => {
  class Refusal extends Error {
    readonly statusCode = 422
    get details (): never { return fail() }
    get validation (): never { return fail() }
  }
  t.match(toError(new Refusal('no')), { message: 'no', statusCode: 422 })
})

t.test('whatever was thrown can be read and logged', async t => {
  class Frozen extends Error {
    readonly statusCode = 402
    readonly details = Object.freeze({ price: 3 })
    constructor (message: string) {
      super(message)
      Object.freeze(this)
    }
  }
  const thrown = [
    undefined, null, 'x', 7, 1n, Symbol('x'), fail, {}, Object.create(null), unreadable, Object.freeze(new Error('x')), new Frozen('x'),
    ...['message', 'stack', 'name', 'code', 'cause', 'anything', 'constructor', 'errors'].map(getter), new Error('x', { cause: fail }),
    new Error('x', { cause: Object.freeze(new Error('y')) }), new Error('x', { cause: unreadable }),
    new Error('x', { cause: getter('stack') }),
    new AggregateError([Object.freeze(new Error('y'))]), new AggregateError([unreadable]),
    { message: 'x', stack: 'y', get code () { return fail() } },
    Object.assign(new Error('x'), { inner: getter('code') }), Object.assign(new Error('x'), { toJSON: fail }),
    Object.assign(new Error('x'), { data: { toJSON: fail } }), new Proxy(new Error('x'), { get: fail })
  ]
  for (const value of thrown) {
    const error = toError(value)
    t.ok(error instanceof Error)
    t.doesNotThrow(() => {
      log.error({ err: error }, 'logged')
      String(error)
    })
  }
  t.match(toError(new Frozen('pay first')), { name: 'Error', message: 'pay first', statusCode: 402, details: { price: 3 } })
  t.ok(toError(new Frozen('pay first')) instanceof Frozen)
  t.match(toError(Object.assign(getter('stack'), { code: 'E_X', statusCode: 409 })), { message: 'x', code: 'E_X', statusCode: 409 })
})
