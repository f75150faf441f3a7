import { logHeaderBytes } from '../envelope.ts'

/**
 * Lua: finds the end of a log whose meta Redis lost by itself (evicted or deleted), in the header of the latest message of the list.
 * Takes `epoch`, which is false where there is no meta. Leaves what the header says in `epoch`, `offset` and `nonce`, and the message in
 * `tail`: nil where there is a meta, or no message.
 */
export function luaFindEnd (list: string): string {
  return `
local tail
if not epoch then
  tail = redis.pcall('LRANGE', ${list}, -1, -1)[1]
  if tail and #tail >= ${logHeaderBytes} and string.sub(tail, 1, 2) == '\\209\\1' then
    epoch, nonce = string.sub(tail, 3, 10), string.sub(tail, 17, 20)
    offset = struct.unpack('>I6', tail, 11)
  else
    tail = nil
  end
end`
}
