import type { Link } from './port.ts'
import { isWrongType } from './reply-errors.ts'
import { Script } from './script.ts'

/** A key, and the command that counts what it holds: it fails where the key holds something of another type. */
export type TypedKey = readonly [key: string, count: 'HLEN' | 'SCARD' | 'ZCARD' | 'STRLEN']

export const hashes = (keys: readonly string[]): TypedKey[] => keys.map(key => [key, 'HLEN'])

/**
 * Removes those of these keys that another program turned into another type: they can then be written anew, as after a loss.
 * KEYS any.  ARGV the command that counts each
 */
const removeForeign = new Script(`
for k = 1, #KEYS do
  local answer = redis.pcall(ARGV[k], KEYS[k])
  if type(answer) == 'table' and string.find(answer.err, 'WRONGTYPE', 1, true) then redis.call('DEL', KEYS[k]) end
end
`)

/**
 * Runs `call`. If it fails because another program overwrote one of its keys with another type, that key is removed, so that it counts as
 * lost, and `call` runs once more. `keysOf` is called only then.
 */
export async function mending<Answer> (
  link: Pick<Link, 'script'>, keysOf: () => readonly TypedKey[], call: () => Promise<Answer>
): Promise<Answer> {
  try {
    return await call()
  } catch (error) {
    if (!isWrongType(error)) throw error
    const keys = keysOf()
    await link.script(removeForeign, keys.map(([key]) => key), keys.map(([, count]) => count))
    return await call()
  }
}
