import type { FastifyBaseLogger } from 'fastify'
import { deferred, withDeadline } from '../../deadline.ts'
import { hasCode, WebsocketGroupsError } from '../../errors.ts'
import type { Member } from '../../types.ts'
import type { Appended, AppendTarget, Backplane, Envelope, LogPage, LogPosition, StreamStore, Target } from '../backplane.ts'
import { claim } from './claim.ts'
import { clusterWay } from './cluster-way.ts'
import { ClusterWriter } from './cluster-writer.ts'
import { Decision } from './decision.ts'
import { Inbox } from './inbox.ts'
import { Keys } from './keys.ts'
import { clusterOf, clusterSource, type ClusterSource } from './link/cluster/source.ts'
import { missingOnMasters } from './link/cluster/rights.ts'
import { Link } from './link/link.ts'
import { checkServer, ClusterModeError, isFinal, refused, refusedRights, type Server } from './link/server.ts'
import { keysOf, optionsOf, type RedisSource } from './link/source.ts'
import type { PublisherOptions } from '../../options/types.ts'
import type { RevocationStore } from './membership/revocations.ts'
import { RedisWriter } from './writer.ts'

const connectMs = 5_000
/** How soon a server that refused is looked at again (milliseconds). */
const againMs = 1_000

interface StandaloneWriterOptions {
  readonly redis: PublisherOptions['redis']
  readonly keyPrefix: string
  readonly operationTimeoutMs: number
  readonly logger?: FastifyBaseLogger | undefined
}

type Calls = 'publish' | 'append' | 'block' | 'count' | 'members' | 'history' | 'instances'

/** How Redis is reached: by one link, or by those to the masters of a cluster. */
interface Way {
  readonly writer: Pick<RedisWriter, Calls | 'close'> & { readonly streams: StreamStore }
  readonly usable: boolean
  revocationsOf (group: string): RevocationStore
  inbox (id: string, deliver: (envelope: Envelope) => void): Inbox
  close (): Promise<void>
}

/**
 * The part of the backplane that a process without sockets needs: one link, no lease, and no subscription before the process asks an
 * instance something. The first calls wait for the link.
 */
export class StandaloneWriter implements Pick<Required<Backplane>, Calls | 'close'> {
  readonly #options: StandaloneWriterOptions
  #way: Way
  #inbox: Inbox | undefined
  readonly #logger: FastifyBaseLogger | undefined
  readonly #decision: Decision
  #again: NodeJS.Timeout | undefined
  #callsUnderWay = 0
  /** Tells `close` that the last call ended. */
  #lastEnded = (): void => {}
  readonly #ended = deferred()
  #closed = false
  /** The writer is closed, and what `close` had to finish is finished. */
  #finished = false

  constructor (options: StandaloneWriterOptions) {
    this.#options = options
    this.#logger = options.logger
    this.#decision = new Decision(options.logger)
    const source = clusterSource(options.redis)
    this.#way = source === undefined ? this.#single(options.redis as RedisSource) : this.#cluster(source)
    void withDeadline(this.#decision.made, connectMs, () => {
      // A cluster is of use even when only a part of it can be reached.
      const refusal = new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', `Redis could not be reached within ${connectMs} ms`)
      this.#decision.make(this.#way.usable ? undefined : refusal)
    })
  }

  // Every message goes through one of these two, so they make no promises of their own: see `Link.bytesScript`.
  publish (targets: readonly Target[], envelope: Envelope): Promise<number> {
    return this.#run(() => this.#way.writer.publish(targets, envelope))
  }

  append (targets: readonly AppendTarget[], envelope: Envelope, key?: string): Promise<Appended> {
    return this.#run(() => this.#way.writer.append(targets, envelope, key))
  }

  async block (name: string, forMs: number): Promise<boolean> {
    return await this.#run(async () => await this.#way.writer.block(name, forMs))
  }

  async count (group: string): Promise<number> {
    return await this.#run(async () => await this.#way.writer.count(group))
  }

  async members (group: string): Promise<Member[]> {
    return await this.#run(async () => await this.#way.writer.members(group))
  }

  async history (group: string, since: LogPosition | undefined, limit: number): Promise<LogPage> {
    return await this.#run(async () => await this.#way.writer.history(group, since, limit))
  }

  async instances (): Promise<ReadonlyMap<string, boolean>> {
    return await this.#run(async () => await this.#way.writer.instances())
  }

  /** As `Backplane.revoke`, at the present time of Redis. */
  async revoke (group: string, names: readonly string[], position: LogPosition | undefined, forMs: number): Promise<void> {
    await this.#run(async () => await this.#way.revocationsOf(group).set(group, names, { position }, forMs))
  }

  get streams (): StreamStore {
    return {
      // Allowed while this closes: `finish` of `close` ends open streams.
      write: async write => await this.#run(async () => await this.#way.writer.streams.write(write), this.#finished),
      read: async (name, from) => await this.#run(async () => await this.#way.writer.streams.read(name, from)),
      list: async group => await this.#run(async () => await this.#way.writer.streams.list(group))
    }
  }

  /** Subscribes to what is sent to this id. Resolves once that reaches `deliver`. @throws {WebsocketGroupsError} as `publish` */
  async listen (id: string, deliver: (envelope: Envelope) => void): Promise<void> {
    await this.#run(async () => {
      this.#inbox ??= this.#way.inbox(id, deliver)
      await this.#inbox.open()
    }, this.#finished)
  }

  /**
   * Takes no more calls, and waits for those that were made: each ends within its deadline. Those that wait for Redis are carried out once
   * it is there; if it is not, they end soon after an attempt to connect failed.
   * @param finish runs first; only streams can be written meanwhile
   */
  async close (finish = async (): Promise<void> => {}): Promise<void> {
    if (this.#closed) return await this.#ended.promise
    this.#closed = true
    if (this.#callsUnderWay > 0) await this.#decision.attempted(this.#options.operationTimeoutMs)
    this.#decision.close(this.#way.usable)
    clearTimeout(this.#again)
    await finish()
    this.#finished = true
    if (this.#callsUnderWay > 0) await new Promise<void>(resolve => { this.#lastEnded = resolve })
    await this.#inbox?.close()
    this.#way.writer.close()
    await this.#way.close()
    this.#ended.resolve()
  }

  /** @throws {WebsocketGroupsError} WSG_CLOSED */
  assertOpen (closed = this.#closed): void {
    if (closed) throw new WebsocketGroupsError('WSG_CLOSED')
  }

  /** @throws {WebsocketGroupsError} WSG_CLOSED, why Redis cannot be used, and what the call throws */
  async #run<T> (call: () => Promise<T>, closed = this.#closed): Promise<T> {
    this.assertOpen(closed)
    this.#callsUnderWay++
    try {
      await this.#decision.made
      if (this.#decision.refusal !== undefined) throw this.#decision.refusal
      return await call()
    } finally {
      if (--this.#callsUnderWay === 0) this.#lastEnded()
    }
  }

  #single (redis: RedisSource): Way {
    const { keyPrefix, operationTimeoutMs } = this.#options
    const keys = keysOf(redis, keyPrefix)
    const link = new Link(redis, 'command', operationTimeoutMs)
    link.on({
      up: () => {
        void this.#check(async () => {
          const server = await checkServer(link, keys, 'publisher')
          if (server.missing.length === 0) await claim(link, keys, 1)
          return server
        })
      },
      down: () => this.#logger?.warn('publisher lost Redis'),
      error: error => this.#failed(error)
    })
    const writer = new RedisWriter(link, keys, 'reject', this.#logger)
    return {
      writer,
      get usable () { return link.up },
      revocationsOf: () => writer.revocations,
      inbox: (id, deliver) => {
        const subscribe = new Link(redis, 'subscribe', operationTimeoutMs)
        return new Inbox({ command: link, subscribe }, keys.channel(inboxOf(id)), deliver, async () => await subscribe.close())
      },
      close: async () => await link.close()
    }
  }

  #cluster (source: ClusterSource): Way {
    const prefix = source.keyPrefix + this.#options.keyPrefix
    const { operationTimeoutMs } = this.#options
    const { links, keys } = clusterWay(source, prefix, operationTimeoutMs, {
      changed: () => {
        // The first calls wait for all masters; later calls use those that can be reached.
        if (!links.complete && (this.#decision.refusal === undefined || !links.someUp)) return
        void this.#check(async () => {
          const common = new Keys(prefix)
          await claim(links.common, common, keys.length)
          return { missing: await missingOnMasters(links.command, keys, 'publisher') }
        })
      },
      error: error => this.#failed(error)
    })
    const writer = new ClusterWriter(links, keys, 'reject', this.#logger)
    return {
      writer,
      get usable () { return links.someUp },
      revocationsOf: group => writer.revocationsOf(group),
      inbox: (id, deliver) => {
        const partition = writer.partitionOf(inboxOf(id))
        // The inbox has links of its own, as those of the writer subscribe at no master.
        const own = clusterWay(source, prefix, operationTimeoutMs, {
          changed: () => {}, error: error => this.#failed(error), subscribed: index => index === partition
        })
        const [command, subscribe, names] = [own.links.command[partition], own.links.subscribe[partition], own.keys[partition]]
        if (command === undefined || subscribe === undefined || names === undefined) throw new RangeError(`no partition ${partition}`)
        return new Inbox({ command, subscribe }, names.channel(inboxOf(id)), deliver, async () => await own.links.close())
      },
      close: async () => await links.close()
    }
  }

  #failed (error: Error): void {
    this.#logger?.debug({ err: error }, 'publisher: Redis link error')
    this.#decision.failed()
    // Other masters of a cluster can still be used: calls to this one fail by themselves.
    if (this.#decision.worked && this.#way.usable) return
    if (hasCode(error, 'WSG_REDIS_REFUSED', 'WSG_REDIS_UNSUPPORTED', 'WSG_OPTION_INVALID')) this.#decision.make(error)
    else if (isFinal(error)) this.#decision.make(refused(error))
  }

  /**
   * The links work. Only a server that cannot be used at all is refused; any other failure, such as a right that is lost later, shows in
   * the calls themselves. While the server is refused it is looked at again and again: no connection ends when a right is given.
   */
  async #check (look: () => Promise<Pick<Server, 'missing'>>): Promise<void> {
    const decision = this.#decision
    try {
      const { missing } = await look()
      decision.make(missing.length === 0 || decision.worked ? undefined : refusedRights(missing))
    } catch (error) {
      if (error instanceof ClusterModeError) return await this.#changeToCluster()
      const final = isFinal(error as Error)
      if (hasCode(error, 'WSG_REDIS_UNSUPPORTED')) decision.make(error as Error)
      else if (final && !decision.worked) decision.make(refused(error as Error))
      // A look that failed says nothing about rights that were missing before.
      else if (final || !hasCode(decision.refusal, 'WSG_REDIS_REFUSED')) decision.make(undefined)
    }
    clearTimeout(this.#again)
    if (decision.refusal === undefined || decision.final) return
    this.#again = setTimeout(() => { if (this.#way.usable) void this.#check(look) }, againMs).unref()
  }

  /** The server is a node of a cluster. */
  async #changeToCluster (): Promise<void> {
    if (this.#decision.final) return
    const single = this.#way
    this.#way = this.#cluster(clusterOf(optionsOf(this.#options.redis as RedisSource)))
    single.writer.close()
    await single.close()
  }
}

function inboxOf (id: string): Target {
  return { kind: 'instance', name: id }
}
