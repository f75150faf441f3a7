import { Command } from 'ioredis'
import type { Test } from 'tap'
import type { Envelope, GapReason, LogPosition } from '../../lib/backplane/backplane.ts'
import { decode, encodeParts, isLogged, positionOf, previousNonce } from '../../lib/backplane/redis/envelope.ts'
import type { RedisBackplane } from '../../lib/backplane/redis/index.ts'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import type { RedisSource } from '../../lib/backplane/redis/link/source.ts'
import { BulkReads } from '../../lib/backplane/redis/link/bulk.ts'
import type { Link } from '../../lib/backplane/redis/link/link.ts'
import { LogFollowers } from '../../lib/backplane/redis/log/followers.ts'
import type { Script } from '../../lib/backplane/redis/link/script.ts'
import { encodeAppend } from '../../lib/backplane/redis/log/append-call.ts'
import { randomNonce } from '../../lib/backplane/redis/log/random.ts'
import { append } from '../../lib/backplane/redis/log/scripts.ts'
import { WebsocketGroupsError } from '../../lib/errors.ts'
import { drawId } from '../../lib/ids.ts'
import { messageEnvelope } from '../helpers/envelopes.ts'
import { EmptyInstance, redisBackplane } from '../helpers/local-instance.ts'
import type { TestRedis } from '../helpers/redis.ts'

/** An instance reduced to what it was given: texts of messages and gaps, in their order. */
export class Recorder extends EmptyInstance {
  readonly events: string[] = []
  readonly received: Envelope[] = []
  /** Offsets at which a log went on that had seemed to be lost. */
  readonly returns: number[] = []
  readonly gaps: Array<{ readonly group: string, readonly reason: GapReason, readonly position: LogPosition }> = []

  override deliver (envelope: Envelope): void {
    this.received.push(envelope)
    this.events.push(envelope.payload.length > 50 ? `${envelope.payload.toString('latin1', 0, 10)}…` : envelope.payload.toString())
  }

  override returned (_group: string, { offset }: LogPosition): void {
    this.returns.push(offset)
  }

  override gap (group: string, reason: GapReason, position: LogPosition): void {
    this.gaps.push({ group, reason, position })
    this.events.push(`gap: ${reason} to ${position.offset}`)
  }

  override logged (group: string): boolean { return group.startsWith('log') }
}

export function envelope (group: string, text: string | Buffer): Envelope {
  return messageEnvelope(text, { origin: drawId(), target: { kind: 'group', name: group } })
}

const publisher = drawId()
let sequence = 0

/**
 * Appends without telling anyone, as if the transport swallowed it. Returns what would have been published. `kind`, `flags` and `lua` are
 * those of another version.
 */
export async function appendQuietly (
  redis: TestRedis['admin'], group: string, text: string | Buffer,
  { keep = 1000, kind = 0, flags = 0, lua = append.lua, channel = 'nobody is here' } = {}
): Promise<Buffer> {
  const names = new Keys('wsg:')
  const parts = encodeParts(envelope(group, text), false)
  if (kind !== 0) parts.prefix[0] = kind
  parts.prefix[1] = (parts.prefix[1] ?? 0) | flags
  const targets = [{ group, log: { maxMessages: keep, maxBytes: 1_073_741_824, ttlMs: 600_000 } }]
  const { keys, args } = encodeAppend(names, {
    publisher, key: undefined, messages: [{ ...parts, targets, sequence: ++sequence, nonce: randomNonce() }]
  })
  await redis.eval(lua, keys.length, ...keys, ...args.with(6, channel))
  const [bytes] = await redis.lrangeBuffer(names.log(group), -1, -1)
  if (bytes === undefined) throw new Error('it is not in the log')
  return bytes
}

export interface TestInstance {
  readonly local: Recorder
  readonly backplane: RedisBackplane
  /** Appends some messages at once: what came of each, its offset or the code of its error. */
  append (
    texts: readonly string[], options?: { readonly group?: string, readonly keep?: number, readonly key?: string }
  ): Promise<Array<number | string>>
}

export async function startBackplane (
  t: Test, redis: RedisSource,
  { policy = 'reject' as 'reject' | 'queue', local = new Recorder(), groups = ['log'], operationTimeoutMs = 500, leaseMs = 15_000 } = {}
): Promise<TestInstance> {
  const backplane = redisBackplane({ redis, operationTimeoutMs, joinTimeoutMs: 2_000, leaseMs, lingerMs: 1_000, whenDown: policy })
  t.teardown(async () => await backplane.close())
  await backplane.start(local)
  await backplane.subscribe({ kind: 'instance', name: local.instanceId })
  for (let start = 0; start < groups.length; start += 1_000) {
    await Promise.all(groups.slice(start, start + 1_000).map(async name => await backplane.subscribe({ kind: 'group', name })))
  }
  return {
    local,
    backplane,
    async append (texts, { group = 'log', keep = 10_000, key } = {}) {
      return await Promise.all(texts.map(async text => {
        try {
          const log = { maxMessages: keep, maxBytes: 1_073_741_824, ttlMs: 60_000 }
          return (await backplane.append([{ group, log }], envelope(group, text), key)).positions.get(group)?.offset ?? 'not in the log'
        } catch (error) {
          return String((error as { code?: string }).code)
        }
      }))
    }
  }
}

/** All texts of the log, oldest first. */
export async function logOf (redis: TestRedis, group = 'log'): Promise<string[]> {
  const entries = await redis.admin.lrangeBuffer(new Keys('wsg:').log(group), 0, -1)
  return entries.map(bytes => decode(bytes)?.payload.toString() ?? '?')
}

interface Held { readonly what: 'top' | 'page', release (): void }

/** Stands in for a link: the call is carried out at once, its reply can be held back. */
class HeldLink {
  up = true
  calls = 0
  /** Settles when the connection before this one brings nothing more; `undefined`: there is none. */
  previous: Promise<void> | undefined
  /** How often it was asked for. */
  asked = 0
  holding = false
  readonly held: Held[] = []
  readonly bulk = new BulkReads()
  readonly #redis: TestRedis['admin']

  constructor (redis: TestRedis['admin']) {
    this.#redis = redis
  }

  async run (command: (redis: TestRedis['admin']) => Promise<unknown>): Promise<unknown> {
    this.#assertUp()
    return await this.#reply('top', await command(this.#redis))
  }

  async bytesScript (script: Script, keys: string[], args: Array<string | number | Buffer>): Promise<unknown> {
    this.#assertUp()
    return await this.#reply('page', await this.#redis.sendCommand(new Command('eval', [script.lua, keys.length, ...keys, ...args])))
  }

  async bulkScript (script: Script, keys: string[], args: Array<string | number | Buffer>): Promise<unknown> {
    return await this.bytesScript(script, keys, args)
  }

  /** Lets the replies go that are held now, in their order. */
  release (): void {
    for (const { release } of this.held.splice(0)) release()
  }

  previousDrained (): Promise<void> | undefined {
    this.asked++
    return this.previous
  }

  #assertUp (): void {
    this.calls++
    if (!this.up) throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE')
  }

  async #reply (what: Held['what'], reply: unknown): Promise<unknown> {
    if (this.holding) await new Promise<void>(resolve => { this.held.push({ what, release: resolve }) })
    return reply
  }
}

/** Readers over a real log, whose replies and live messages arrive when the test says so. */
export function readersRig (redis: TestRedis) {
  const link = new HeldLink(redis.admin)
  const command = link as unknown as Link
  const local = new Recorder()
  let changes = 0
  const readers = new LogFollowers({ command, subscribe: command }, new Keys('wsg:'), local, () => { changes++ })
  return {
    link,
    local,
    readers,
    events: local.events,
    get changes () { return changes },
    /** Appends to the log; the live message arrives with `live`, or never. */
    append: async (text: string, options?: Parameters<typeof appendQuietly>[3]) => await appendQuietly(redis.admin, 'log', text, options),
    live (...messages: Buffer[]): void {
      for (const bytes of messages) {
        const one = decode(bytes)
        if (isLogged(one)) readers.receive(one, previousNonce(bytes))
      }
    },
    positionOf
  }
}
