import t from 'tap'
import { assertClose, closeReasons, isSendableClose, isSendableCloseCode, maxCloseReasonBytes } from '../../../lib/connection/close.ts'
import { CloseCode } from '../../../lib/protocol/close-codes.ts'

t.test('every code of this package may be sent, and its reason fits into a close frame', async t => {
  for (const code of Object.values(CloseCode)) {
    t.equal(isSendableCloseCode(code), true, String(code))
    t.ok(Buffer.byteLength(closeReasons[code]) <= maxCloseReasonBytes)
  }
})

t.test('codes that RFC 6455 reserves cannot be sent', async t => {
  for (const code of [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 1000.5, NaN, -1]) {
    t.equal(isSendableCloseCode(code), false, String(code))
    t.throws(() => assertClose(code, ''), { code: 'WSG_CLOSE_CODE_INVALID', message: new RegExp(`got code ${code}`) })
  }
  for (const code of [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999]) t.doesNotThrow(() => assertClose(code, 'bye'))
})

t.test('a reason is measured in bytes, not in characters', async t => {
  t.doesNotThrow(() => assertClose(1000, 'x'.repeat(123)))
  t.throws(() => assertClose(1000, 'é'.repeat(100)), { code: 'WSG_CLOSE_CODE_INVALID', message: /reason of 200 bytes/ })
})

t.test('codes and reasons of a wrong type are refused, not sent', async t => {
  t.throws(() => assertClose('1000' as unknown as number, ''), { code: 'WSG_CLOSE_CODE_INVALID' })
  t.throws(() => assertClose(1000, null as unknown as string), { code: 'WSG_CLOSE_CODE_INVALID', message: /not a string/ })
  t.equal(isSendableClose(4000, 'x'), true)
  t.equal(isSendableClose(undefined, ''), false)
  t.equal(isSendableClose(4000, {}), false)
})
