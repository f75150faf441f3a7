import type { MetricBase, MetricLabels } from './types.ts'

/** How a number of `registry.stats()` is shown as a metric. */
export interface Entry extends MetricBase {
  readonly name: string
  readonly type: 'counter' | 'gauge'
  readonly labels?: MetricLabels | undefined
  /** Multiplies the number, to convert it to `unit`. */
  readonly factor?: number | undefined
}

function counter (name: string, help: string, more: Pick<Entry, 'labels' | 'unit'> = {}): Entry {
  return { name: `${name}_total`, type: 'counter', help, ...more }
}

function gauge (name: string, help: string, more: Pick<Entry, 'unit' | 'factor'> = {}): Entry {
  return { name, type: 'gauge', help, ...more }
}

const bytes = { unit: 'bytes' } as const

const refusals = 'Upgrades that authentication, a limit or a block kept out, or that came while this instance takes no connections.'
const refused = (reason: string): Entry => counter('upgrades_refused', refusals, { labels: { reason } })
/** Has no number of its own: counts what is left of `upgradesRefused` when all other reasons are subtracted. */
export const refusedNotReady = refused('not_ready')
const limitHits = 'How often a limit held something up or kept something out.'
const limited = (limit: string): Entry => counter('limit_hits', limitHits, { labels: { limit } })
const failures = 'What went wrong for single messages, requests and connections.'
const failed = (what: string): Entry => counter('failures', failures, { labels: { what } })
const outages = 'What policies decided because the backplane was out.'
const inOutage = (decision: string): Entry => counter('outage_decisions', outages, { labels: { decision } })

/**
 * Every number of `registry.stats()` that this package counts, as a metric. Two sums are left out, because snapshot.ts has their parts:
 * `upgradesRefused` by reason, and `connectionsClosed` by code.
 */
export const catalogue: Readonly<Record<string, Entry>> = {
  connectionsOpened: counter('connections_opened', 'Connections that were opened.'),
  connections: gauge('connections', 'Connections of this instance.'),
  admitted: gauge('connections_admitted', 'Connections of this instance, with those that are about to open.'),
  addresses: gauge('addresses', 'Addresses that connections are counted for.'),
  users: gauge('users', 'Users that have connections here.'),
  addressesRemembered: gauge('addresses_remembered', 'Addresses whose latest upgrades are remembered.'),
  groups: gauge('groups', 'Groups that have members here.'),
  streams: gauge('streams', 'Streams of tokens that are made here.'),
  blocked: gauge('blocked', 'Users and tokens that are kept out.'),
  connectionsBlocked: counter('connections_blocked', 'Connections that registry.block closed.'),

  refusedAddressRate: refused('address_rate'),
  refusedAddressFull: refused('address_full'),
  refusedUserFull: refused('user_full'),
  refusedInstanceFull: refused('instance_full'),
  refusedUpgradeRate: refused('upgrade_rate'),
  refusedBlocked: refused('blocked'),
  refusedUnauthorized: refused('unauthorized'),
  refusedForbidden: refused('forbidden'),
  refusedFailed: refused('failed'),
  refusedNoRoute: refused('no_route'),

  requestsDelayed: limited('requests'),
  messagesRefused: limited('messages_by_name'),
  streamsRefused: limited('streams'),
  memberEntriesLeftOut: limited('presence_entries'),
  groupsRefused: limited('groups_per_connection'),
  newGroupsRefused: limited('new_groups'),
  storedBytesRefused: limited('stored_bytes'),
  pauses: limited('reading_paused'),
  stalledMessages: limited('stalled_messages'),
  queueOverflows: limited('queued_messages'),
  slowConsumersClosed: limited('buffered_bytes'),
  fragmentFloods: limited('message_parts'),
  framesDropped: limited('volatile_dropped'),
  framesConflated: limited('volatile_conflated'),
  intakeBytes: gauge('intake_bytes', 'Clients\' messages that are held in memory.', bytes),
  socketsPaused: gauge('sockets_paused', 'Connections that are not read now.'),
  slowConnections: gauge('slow_connections', 'Connections that read too slowly.'),
  bufferedBytes: gauge('buffered_bytes', 'What waits for slow connections.', bytes),

  messagesReceived: counter('messages_received', 'Messages and requests of clients that were handled.'),
  messagesPublished: counter('messages_published', 'Broadcasts and direct sends that were called on this instance.'),
  messagesDelivered: counter('messages_delivered', 'Messages that came from the backplane for connections here.'),
  framesSent: counter('frames_sent', 'Messages handed to sockets.'),

  publishedLocally: inOutage('published_locally'),
  publishesDropped: inOutage('publish_dropped'),
  joinsLocal: inOutage('joined_locally'),
  userLimitsLocal: inOutage('user_counted_locally'),

  messagesFailed: failed('message'),
  heartbeatTimeouts: failed('heartbeat'),
  tokensExpired: failed('token_expired'),
  tokensRefused: failed('token_refused'),
  resumesRefused: failed('resume_refused'),
  callbacksOverdue: failed('callback_overdue'),
  repliesLost: failed('reply_lost'),
  envelopesUnknown: failed('envelope_unknown'),

  gaps: counter('gaps', 'Losses of messages in logs of groups that have members here.'),
  gapConnections: counter('gap_connections', 'Connections that messages are lost to, once for each loss.'),
  repairs: counter('log_repairs', 'Logs that were read because their subscription had missed something.'),
  repairsPending: gauge('log_repairs_pending', 'Logs that are being repaired.'),
  repairedMessages: counter('log_repaired_messages', 'Messages that were delivered from a log instead of from a subscription.'),
  duplicatesDropped: counter('log_duplicates_dropped', 'Messages that came again and were not delivered again.'),
  logsHeld: gauge('logs_held', 'Groups whose messages wait for the log of another one, because of a message to both.'),
  recentGroups: gauge('log_cache_groups', 'Groups whose latest messages are cached.'),
  recentBytes: gauge('log_cache_bytes', 'Size of the cached messages.', bytes),
  memoryLogs: gauge('memory_logs', 'Logs of the memory backplane.'),
  memoryLogBytes: gauge('memory_log_bytes', 'Size of the logs of the memory backplane.', bytes),

  presenceGroups: gauge('presence_groups', 'Groups here that tell their members who is there.'),
  presenceAway: gauge('presence_away', 'Members that are away and may come back.'),

  appendBatches: counter('append_batches', 'Script calls that appended messages to logs.'),
  appendRetries: counter('append_retries', 'Appends that were sent again.'),
  appendsWaiting: gauge('appends_waiting', 'Broadcasts to groups with a log that wait for Redis.'),
  appendsWaitingBytes: gauge('appends_waiting_bytes', 'Size of these broadcasts.', bytes),
  bulkReads: counter('bulk_reads', 'Large reads of logs, lists of members and streams.'),
  bulkBytes: counter('bulk_read_bytes', 'Size of the answers to large reads.', bytes),
  bulkReadsWaiting: gauge('bulk_reads_waiting', 'Large reads that wait for their turn.'),
  bulkReadsFailed: counter('bulk_reads_failed', 'Large reads that failed.'),
  redisUp: gauge('redis_up', '1 while both links to Redis work.'),
  redisConnections: gauge('redis_connections', 'Connections to Redis that are open: two, and up to two more for large messages and reads.'),
  redisEvictedKeys: counter('redis_evicted_keys', 'Keys that Redis dropped for want of memory while this instance watched.'),
  redisTimeouts: counter('redis_timeouts', 'Calls to Redis without an answer in time.'),
  redisReconnects: counter('redis_reconnects', 'How often a link to Redis came back.'),
  redisMasters: gauge('redis_masters', 'Masters of the Redis Cluster that have partitions.'),
  slotRefreshes: counter('redis_slot_refreshes', 'How often a Redis Cluster was asked where its slots are.'),
  partitionsOpen: gauge('partitions_open', 'Partitions of the Redis Cluster that this instance subscribed or joined in.'),
  leasesLost: counter('redis_leases_lost', 'How often the lease of this instance ended while it lived.'),
  leaseAgeMs: gauge('redis_lease_age_seconds', 'Time since this instance renewed its lease.', { unit: 'seconds', factor: 0.001 }),
  instancesReaped: counter('instances_reaped', 'Dead instances that this one cleaned up after.'),
  membersReaped: counter('members_reaped', 'Members of dead instances that this one removed.'),
  channelsWanted: gauge('channels_wanted', 'Redis channels that this instance needs.'),
  channelsSubscribed: gauge('channels_subscribed', 'Redis channels that this instance is subscribed to.'),
  backplaneSubscriptions: gauge('memory_subscriptions', 'Targets that this instance is subscribed to in the memory backplane.')
}
