import { Command, type Redis } from 'ioredis'
import { createHash } from 'node:crypto'
import type { Writable } from 'node:stream'
import { isUnknownScript } from './reply-errors.ts'

type RedisCommand = (redis: Redis) => Promise<unknown>

/** A Lua script with its hash: called by EVALSHA, and by EVAL when Redis does not know the hash. */
export class Script {
  readonly lua: string
  readonly sha: string

  constructor (lua: string) {
    this.lua = lua
    this.sha = createHash('sha1').update(lua).digest('hex')
  }
}

/**
 * Lua: reads the argument at that place, an integer of at least so much, into a local, or ends the script with an error. Takes `args` and
 * `toNumber`. For scripts that are called at each join: to create a function costs Redis as much there as a short command.
 */
export function luaReadInteger (name: string, at: string, least: string): string {
  return `local ${name} = toNumber(args[${at}])
if not ${name} or ${name} < ${least} or ${name} > 9007199254740991 or ${name} % 1 ~= 0 then
  error('argument ' .. ${at} .. ' must be an integer from ' .. ${least} .. ', got ' .. tostring(args[${at}]))
end`
}

/**
 * Lua: `integer(at, least)` is the argument at that place, or the script ends with an error. Redis does not undo what a script wrote before
 * it failed, so a script reads all its arguments before its first write. Leaves them in `args`, as globals are slow to read.
 */
export const luaInteger = `
local args, toNumber = ARGV, tonumber
local function integer (at, least)
${luaReadInteger('number', 'at', 'least')}
return number
end`

/**
 * Lua: ends the script with an error when the Redis user may not publish to the channel. To be used only where Redis has
 * `redis.acl_check_cmd`, which came with 7.0.
 */
export function luaPermitPublish (channel: string): string {
  return `if not redis.acl_check_cmd('PUBLISH', ${channel}, '') then error('NOPERM this user may not run PUBLISH ' .. ${channel}) end`
}

/** Lua: `permit` ends the script if the Redis user may not run a command. Redis before 7.0 cannot tell. */
export const luaPermit = `
local permitted = redis.acl_check_cmd
local function permit (...)
  if not permitted(...) then error('NOPERM this user may not run ' .. table.concat({...}, ' ', 1, 2)) end
end`

/**
 * Lua: ends the script with an error when the Redis user may not run one of these commands, each given as Lua for its words: for those that
 * come after the first write.
 */
export function luaPermitted (...commands: readonly string[]): string {
  return `if redis.acl_check_cmd then${luaPermit}\n  ${commands.map(words => `permit(${words})`).join('\n  ')}\nend`
}

/** Lua: `now` is the time of Redis in milliseconds. */
export const luaNow = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)`

/** The call of a script, by hash and by text. */
export function textCommands (
  { sha, lua }: Script, keys: readonly string[], args: ReadonlyArray<string | number | Buffer>
): [byHash: RedisCommand, byText: RedisCommand] {
  return [
    async redis => await redis.evalsha(sha, keys.length, ...keys, ...args),
    async redis => await redis.eval(lua, keys.length, ...keys, ...args)
  ]
}

/** The call of a script, by hash and by text, with strings of the reply as bytes. */
export function bytesCommands (
  { sha, lua }: Script, keys: readonly string[], args: ReadonlyArray<string | number | Buffer>
): [byHash: RedisCommand, byText: RedisCommand] {
  const command = (name: string, script: string): RedisCommand => async redis => {
    gatherWrites(redis)
    return await redis.sendCommand(new Command(name, [script, keys.length, ...keys, ...args]))
  }
  return [command('evalsha', sha), command('eval', lua)]
}

/**
 * Lets all that is sent in this turn of the event loop leave in one write: Redis then reads its socket once for all of it, and answers in
 * one write. ioredis does so for its own methods, and not for commands that are made by hand.
 */
function gatherWrites ({ stream }: { readonly stream?: Writable }): void {
  if (stream === undefined || stream.writableCorked > 0) return
  stream.cork()
  process.nextTick(() => stream.uncork())
}

/** Calls a script by its hash, and by its text where Redis does not take the hash; see `Link.run` for `settled`. */
export function byHash (evalsha: RedisCommand, evaluate: RedisCommand) {
  return async (redis: Redis, settled: () => boolean): Promise<unknown> => {
    try {
      return await evalsha(redis)
    } catch (error) {
      if (!(error instanceof Error) || !isUnknownScript(error)) throw error
      // The caller heard of a timeout and may have sent something newer since.
      if (settled()) throw error
      return await evaluate(redis)
    }
  }
}

/** The approximate size of arguments on the wire (bytes). */
export function bytesOf (args: ReadonlyArray<string | number | Buffer>): number {
  let bytes = 0
  for (const arg of args) if (typeof arg !== 'number') bytes += arg.length
  return bytes
}
