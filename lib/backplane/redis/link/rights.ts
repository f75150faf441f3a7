import type { Keys } from '../keys.ts'
import type { Link } from './port.ts'
import { Script } from './script.ts'

/** A command, the key or channel it acts on, and further arguments as Redis wants them. */
type Right = readonly string[]

const group = 'group'
const instance = 'instance0'

/** What publishers need. All scripts and calls of this package keep to these lists; HSCAN is used only where it is allowed. */
function rightsOfWriters (keys: Keys): Right[] {
  const [meta, log, record] = [keys.logMeta(group), keys.log(group), keys.idempotency(group, 'key')]
  const [counts, members, names] = [keys.counts(group), keys.members(group, instance), keys.names]
  const revocations = keys.revocations(group)
  const [head, text, streams] = [keys.streamHead(group, 'id'), keys.streamText(group, 'id'), keys.streams(group)]
  return [
    ['ping'], ['time'], ['eval', 'return 1', '0'],
    ['publish', keys.channel({ kind: 'group', name: group }), ''],
    ['publish', keys.channel({ kind: 'user', name: 'user' }), ''],
    ['publish', keys.channel({ kind: 'all', name: '' }), ''],
    ['hmget', meta, 's'], ['hset', meta, 's', '0'], ['hdel', meta, 's'], ['hgetall', meta], ['pexpire', meta, '1'],
    ['rpush', log, ''], ['ltrim', log, '0', '-1'], ['lrange', log, '0', '-1'], ['lpop', log], ['llen', log], ['pexpire', log, '1'],
    ['get', names], ['set', names, '', 'PX', '1'], ['pexpire', names, '1'],
    ['get', record], ['set', record, '', 'PX', '1'],
    ['hget', counts, instance], ['hkeys', counts], ['hgetall', members],
    ['hget', revocations, 'a'], ['hset', revocations, 'a', ''], ['hgetall', revocations], ['hlen', revocations], ['hdel', revocations, 'a'],
    ['pttl', revocations], ['pexpire', revocations, '1'],
    ['hmget', head, 'epoch'], ['hset', head, 'epoch', ''], ['pexpire', head, '1'],
    ['append', text, ''], ['strlen', text], ['getrange', text, '0', '-1'], ['del', text], ['pexpire', text, '1'],
    ['zadd', streams, '1', 'id'], ['zscore', streams, 'id'], ['zcard', streams], ['zremrangebyscore', streams, '-inf', '1'],
    ['zrangebyscore', streams, '-inf', '1'], ['pexpire', streams, '1'], ['pttl', streams]
  ]
}

function rightsOfInstances (keys: Keys): Right[] {
  const [meta, log, secret] = [keys.logMeta(group), keys.log(group), keys.secret]
  const [user, blocked] = [keys.user('user'), keys.blocks]
  const [counts, members, index] = [keys.counts(group), keys.members(group, instance), keys.index(instance)]
  const { leases, instances, generations } = keys
  const inbox = keys.channel({ kind: 'instance', name: instance })
  return [
    ...rightsOfWriters(keys),
    ...(['group', 'user', 'instance', 'all'] as const).map(kind => ['unsubscribe', keys.channel({ kind, name: 'name' })]),
    ['publish', inbox, ''], ['pubsub', 'numsub', inbox],
    ['pttl', meta], ['exists', meta], ['exists', log],
    ['hmget', keys.revocations(group), 'a'],
    ['set', secret, '', 'EX', '1', 'NX'], ['get', secret], ['expire', secret, '1'],
    ['zadd', leases, '1', instance], ['zrem', leases, instance], ['zrangebyscore', leases, '-inf', '1'], ['zscore', leases, instance],
    ['zcard', leases], ['pexpire', leases, '1'], ['del', leases],
    ['hget', instances, instance], ['hmget', instances, instance], ['hset', instances, instance, ''], ['hdel', instances, instance],
    ['hvals', instances], ['hlen', instances], ['hkeys', instances], ['pexpire', instances, '1'], ['del', instances],
    ['hget', generations, instance], ['hmget', generations, instance], ['hset', generations, instance, '1'],
    ['hincrby', generations, '', '1'], ['hdel', generations, instance], ['hlen', generations], ['pexpire', generations, '1'],
    ['hset', members, 'id', ''], ['hdel', members, 'id'], ['hlen', members], ['hkeys', members], ['exists', members],
    ['pexpire', members, '1'], ['unlink', members], ['exists', counts], ['hget', counts, instance], ['hkeys', counts],
    ['hmget', counts, '#'], ['hset', counts, '#', '1'], ['hdel', counts, instance], ['pexpire', counts, '1'],
    ['del', counts],
    ['sadd', index, ''], ['srem', index, ''], ['smembers', index], ['sscan', index, '0'], ['scard', index], ['smismember', index, ''],
    ['pexpire', index, '1'], ['scan', '0'],
    ...(['group', 'user'] as const).map(kind => keys.told(kind)).flatMap(told => {
      return [['sadd', told, ''], ['srem', told, ''], ['sscan', told, '0'], ['pexpire', told, '1']]
    }),
    ['hset', user, instance, '1'], ['hget', user, instance], ['hdel', user, instance], ['hgetall', user], ['hlen', user],
    ['pexpire', user, '1'],
    ['zadd', blocked, '1', ''], ['zrem', blocked, ''], ['zremrangebyscore', blocked, '-inf', '1'], ['zcard', blocked],
    ['zscore', blocked, ''], ['zrangebyscore', blocked, '-inf', '1'], ['pttl', blocked], ['pexpire', blocked, '1']
  ]
}

/** What a cluster takes in addition: to find the masters, and the keys of a slot that moves from one master to another. */
const rightsOnClusters: readonly Right[] = [['cluster', 'info'], ['cluster', 'slots'], ['asking']]

/** The right for sharded pub/sub, by which messages go on a cluster. */
function shardedRight ([command = '', ...more]: Right): Right {
  if (command === 'pubsub') return [command, `shard${more[0] ?? ''}`, ...more.slice(1)]
  return [/^(publish|subscribe|unsubscribe)$/.test(command) ? `s${command}` : command, ...more]
}

/**
 * Reads which rights this user lacks. A server older than 7.0 cannot tell.
 * ARGV of each right: how many words it has, its words. SUBSCRIBE and SSUBSCRIBE are checked together with their opposites and are not
 * named themselves, so that whoever watches the connection does not take it for one that subscribes.
 * Returns command and first argument of each right that is missing.
 */
const readMissing = new Script(`
local permitted, missing, at = redis.acl_check_cmd, {}, 1
if not permitted then return missing end
local function check (words)
  local known, allowed = pcall(permitted, unpack(words))
  if known and allowed then return end
  missing[#missing + 1] = words[1]
  missing[#missing + 1] = words[2] or ''
end
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  local words = {unpack(ARGV, at + 1, at + count)}
  check(words)
  local un = string.find(words[1], 'unsub', 1, true)
  if un then
    words[1] = string.sub(words[1], 1, un - 1) .. string.sub(words[1], un + 2)
    check(words)
  end
  at = at + 1 + count
end
return missing
`)

/**
 * Resolves with the commands that the Redis user may not run, or the server does not know, although an instance (or a publisher) needs
 * them sooner or later: each with the key or channel for which it is refused.
 * @throws {WebsocketGroupsError} as `Link.script`
 */
export async function missingRights (link: Link, keys: Keys, role: 'instance' | 'publisher'): Promise<string[]> {
  const all = role === 'instance' ? rightsOfInstances(keys) : rightsOfWriters(keys)
  const rights = link.sharded ? [...all.map(shardedRight), ...rightsOnClusters] : all
  const missing = await link.script(readMissing, [], rights.flatMap(words => [words.length, ...words])) as string[]
  return Array.from({ length: missing.length / 2 }, (_, index) => `${missing[2 * index]} ${missing[2 * index + 1]}`.trim())
}
