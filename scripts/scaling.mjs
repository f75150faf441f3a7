// Prints what a service of a given size asks of Redis, by the formulas and unit costs of docs/scaling.md:
//
//   node scripts/scaling.mjs --connections 10000000 --instances 1000 --masters 32
//
// All options and their defaults:
const given = {
  connections: 100_000,
  instances: 10,
  /** Groups that a connection is in. */
  groups: 3,
  /** Members of a group. */
  members: 20,
  /** Messages to groups, per second, in all. */
  messages: 3_000,
  /** How many of 100 messages are logged. */
  logged: 100,
  /** Bytes of a message. */
  bytes: 250,
  /** Messages that a log keeps. */
  kept: 20,
  /** How long a connection lasts (seconds). */
  session: 600,
  /** Masters: 1 for a single Redis. */
  masters: 1,
  /** Option `leaseMs` (seconds). */
  lease: 15
}

/** Unit costs, which are options too: microseconds of one core of Redis, and bytes. The defaults are those of docs/scaling.md. */
const cost = {
  publish: 2,
  delivery: 1.5,
  append: 13,
  join: 9.5,
  leave: 8,
  subscribe: 2.5,
  beat: 145,
  instance: 100,
  compare: 1.5,
  subscription: 130,
  membership: 230,
  log: 340,
  envelope: 62
}
const partitions = 256

for (let at = 2; at < process.argv.length; at += 2) {
  const [name, value] = [process.argv[at].replace(/^--/, ''), Number(process.argv[at + 1])]
  const numbers = [given, cost].find(numbers => Object.hasOwn(numbers, name))
  if (numbers === undefined || !(value >= 0)) {
    throw new Error(`give numbers for any of: ${Object.keys({ ...given, ...cost }).join(', ')}`)
  }
  numbers[name] = value
}
const { connections, instances, groups, members, messages, logged, bytes, kept, session, masters, lease } = given
const groupCount = connections * groups / members
// Members of a group are spread over the instances by chance.
const spread = instances * (1 - (1 - 1 / instances) ** members)
const subscriptions = groupCount * spread
const leases = masters === 1 ? 1 : Math.min(partitions, connections / instances * groups)
const joins = connections * groups / session
const cores = {
  publishing: messages * (cost.publish + logged / 100 * (cost.append - cost.publish)),
  'deliveries to instances': messages * spread * cost.delivery,
  'joins and leaves': joins * (cost.join + cost.leave),
  subscribing: 2 * joins * spread / members * cost.subscribe,
  leases: instances * leases / (lease / 3 * 0.9) * cost.beat,
  'links of instances': instances * masters * cost.instance
}
const all = Object.values(cores).reduce((sum, us) => sum + us, 0)
const memory = {
  subscriptions: subscriptions * cost.subscription,
  memberships: connections * groups * cost.membership,
  logs: groupCount * logged / 100 * (cost.log + kept * (bytes + cost.envelope))
}
const total = Object.values(memory).reduce((sum, size) => sum + size, 0)
const line = (what, value, unit) => console.log(
  `${what.padEnd(44)} ${value.toLocaleString('en', { maximumSignificantDigits: 3 }).padStart(14)} ${unit}`
)

line('groups', groupCount, '')
line('instances with members of a group', spread, '')
line('subscriptions of an instance', subscriptions / instances, '')
line('messages out of Redis', messages * spread, '/s')
line('bytes out of each master', messages * spread * (bytes + cost.envelope) / masters, '/s')
line('messages to clients, of an instance', messages * members / instances, '/s')
for (const [what, us] of Object.entries(cores)) line(`Redis: ${what}`, us / 1e6, 'cores')
line('Redis: all, of each master', all / 1e6 / masters, 'cores')
line('masters that are half idle', Math.ceil(all / 1e6 / 0.5), '')
for (const [what, size] of Object.entries(memory)) line(`memory: ${what}`, size / 1e9, 'GB')
line('memory of each master', total / 1e9 / masters, 'GB')
line('connections of each master', 2 * instances, '')
line('a master fails over: subscriptions again', subscriptions / masters * cost.subscribe / 1e6, 'core s')
line('a master fails over: memberships compared', subscriptions / masters * cost.compare / 1e6, 'core s')
