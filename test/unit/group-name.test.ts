import t from 'tap'
import { assertGroupName, assertUserId, isGroupName, isUserId } from '../../lib/group-name.ts'

const good = ['a', 'lobby', '*', '{x}', 'a:b', '__proto__', 'with space', 'é', '聊天室', '👩‍👩‍👧', 'x'.repeat(255), 'é'.repeat(127)]
const bad: ReadonlyArray<readonly [unknown, string]> = [
  ['', 'an empty string'],
  ['x'.repeat(256), '256 bytes'],
  ['é'.repeat(128), '256 bytes'],
  ['a\0b', 'control characters'],
  ['a\nb', 'control characters'],
  ['a\x7f', 'control characters'],
  ['a\x85', 'control characters'],
  ['\ud800', 'lone surrogates'],
  ['ok\udc00', 'lone surrogates'],
  [undefined, 'got undefined'],
  [null, 'got null'],
  [1, 'got number'],
  [['a'], 'got object']
]

t.test('a group name is any well-formed text of 1 to 255 bytes', async t => {
  for (const name of good) t.doesNotThrow(() => assertGroupName(name), name.slice(0, 20))
})

t.test('a group name that is empty, too long, unprintable or no string is refused with what is wrong', async t => {
  for (const [name, says] of bad) {
    t.throws(() => assertGroupName(name), { code: 'WSG_GROUP_NAME_INVALID', statusCode: 400, message: new RegExp(says) }, says)
  }
})

t.test('the label of messages to a user is no name of a group: whoever posts there would pass for the server', async t => {
  t.throws(() => assertGroupName('wsg:user'), { code: 'WSG_GROUP_NAME_INVALID', message: /messages to their user/ })
  t.doesNotThrow(() => assertGroupName('wsg:users'))
  t.equal(isGroupName('wsg:user'), true, 'a client may resume there')
})

t.test('the name that was refused is not repeated in the error', async t => {
  try {
    assertGroupName(`secret${'x'.repeat(300)}`)
    t.fail('was not refused')
  } catch (error) {
    t.notMatch(String(error), /secret/)
  }
})

t.test('a user id follows the same rule under its own code', async t => {
  for (const name of good) {
    t.equal(isUserId(name), true)
    t.doesNotThrow(() => assertUserId(name))
  }
  for (const [name] of bad) {
    t.equal(isUserId(name), false)
    t.throws(() => assertUserId(name), { code: 'WSG_USER_ID_INVALID' })
  }
})
