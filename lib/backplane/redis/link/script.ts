import { createHash } from 'node:crypto'

/** A Lua script with its hash; called by EVALSHA, and by EVAL when Redis forgot it. */
export class Script {
  readonly lua: string
  readonly sha: string

  constructor (lua: string) {
    this.lua = lua
    this.sha = createHash('sha1').update(lua).digest('hex')
  }
}

/**
 * Lua: `integer(at, least)` is the argument at that place, or the script ends with an error. Redis does not undo what a script wrote before it failed, so a
 * script reads all its arguments before its first write.
 */
export const luaInteger = `
local function integer (at, least)
  local number = tonumber(ARGV[at])
  if number and number >= least and number <= 9007199254740991 and number % 1 == 0 then return number end
  error('argument ' .. at .. ' must be an integer from ' .. least .. ', got ' .. tostring(ARGV[at]))
end`

/**
 * Lua: `permit(command, …)` ends the script with an error where the user of this connection may not run the command. Redis older than 7.0 cannot tell before
 * the command is run.
 */
export const luaPermit = `
local function permit (...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(...) then error('NOPERM this user may not run ' .. table.concat({...}, ' ', 1, math.min(2, #{...}))) end
end`
