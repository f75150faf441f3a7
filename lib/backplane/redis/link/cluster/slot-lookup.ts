import { withDeadline } from '../../../../deadline.ts'
import { WebsocketGroupsError } from '../../../../errors.ts'
import type { Address, ClusterSource } from './source.ts'
import { Dialer } from '../connect.ts'
import { nameOf, uniqueAddresses, type Master } from './master.ts'
import { isFinal, refused } from '../server.ts'
import { readSlotMap, type SlotMap } from './slot-map.ts'

/** How long one node may take to answer (milliseconds). */
const askMs = 1_000
/** How long to refuse views that are older than the latest one (milliseconds). After that the cluster must have been set up anew. */
const staleMs = 30_000

/** Finds out which master has which slots, from nodes that may be out or have an old view. */
export class SlotLookup {
  readonly #source: ClusterSource
  readonly #refused: (error: Error) => void
  /** The nodes in the latest view. */
  #nodes: readonly Address[] = []
  #epoch = 0
  #acceptedAt = performance.now()
  #turn = 0
  #failure: Error | undefined
  #closed = false

  /** `refused` gets the error when a node refuses this client, or is not part of a cluster, or when `natMap` fails. */
  constructor (source: ClusterSource, refused: (error: Error) => void) {
    this.#source = source
    this.#refused = refused
  }

  /** Why the latest look-up failed; `undefined` when it did not. */
  get failure (): Error | undefined {
    return this.#failure
  }

  /**
   * Asks one node after the other, until one that takes part in the cluster has a view that is not older than the latest: these masters,
   * `first` before the others, then all other nodes. Resolves with nothing when no node has such a view. Never rejects. The addresses in
   * the answer are those under which the nodes can be reached.
   */
  async look (masters: readonly Master[], first: Master | undefined): Promise<SlotMap | undefined> {
    let fallback: SlotMap | undefined
    for (const ask of this.#askable(masters, first)) {
      if (this.#closed) return undefined
      try {
        const map = await ask()
        if (map.epoch < this.#epoch && performance.now() - this.#acceptedAt < staleMs) continue
        if (map.ok) return this.#accept(map)
        if (fallback === undefined || map.epoch > fallback.epoch) fallback = map
      } catch (error) {
        this.#failure = error as Error
        if (this.#failure.message.includes('cluster support disabled')) {
          const detail = 'the server is not part of a Redis Cluster: pass its URL alone'
          this.#refused(new WebsocketGroupsError('WSG_REDIS_UNSUPPORTED', detail, { cause: error }))
        } else if (isFinal(this.#failure)) this.#refused(refused(this.#failure))
      }
    }
    // No node reports a healthy cluster: some slots may have no master. The masters of the others are still valid.
    return fallback && this.#accept(fallback)
  }

  /** Asks no further node. */
  close (): void {
    this.#closed = true
  }

  /** The address under which a node can be reached; `undefined`, and an error for the application, if its `natMap` gives none. */
  addressOf (known: Address): Address | undefined {
    try {
      return this.#source.translate(known)
    } catch (error) {
      this.#failure = error as Error
      this.#refused(this.#failure)
      return undefined
    }
  }

  /** If `natMap` gives no address for a node, the partitions of that node are without a master; all others go on. */
  #accept ({ ranges, nodes, ...map }: SlotMap): SlotMap {
    this.#failure = undefined
    this.#epoch = map.epoch
    this.#acceptedAt = performance.now()
    const reachable = nodes.map(node => this.addressOf(node)).filter(address => address !== undefined)
    this.#nodes = uniqueAddresses(reachable)
    return {
      ...map,
      nodes: reachable,
      ranges: ranges.flatMap(range => {
        const master = this.addressOf(range.master)
        return master === undefined ? [] : [{ ...range, master }]
      })
    }
  }

  * #askable (masters: readonly Master[], first: Master | undefined): Iterable<() => Promise<SlotMap>> {
    // Begin with another master each time, because any of them may have an old view.
    const start = first === undefined ? this.#turn++ : masters.indexOf(first)
    for (let n = 0; n < masters.length; n++) {
      const { command, address } = masters[(Math.max(start, 0) + n) % masters.length] as Master
      yield async () => await command.run(async redis => await readSlotMap(redis, address), askMs)
    }
    const asked = new Set(masters.map(({ address }) => nameOf(address)))
    for (const address of [...this.#nodes, ...this.#source.nodes]) {
      if (asked.has(nameOf(address))) continue
      asked.add(nameOf(address))
      yield async () => await this.#askOnce(address)
    }
  }

  /** Asks on a connection of its own. */
  async #askOnce (address: Address): Promise<SlotMap> {
    const redis = new Dialer({ ...this.#source.options, ...address }, 'command').dial()
    try {
      return await withDeadline(new Promise<SlotMap>((resolve, reject) => {
        redis.on('error', reject)
        redis.once('close', () => reject(new Error(`${nameOf(address)} closed the connection`)))
        redis.once('ready', () => { readSlotMap(redis, address).then(resolve, reject) })
      }), askMs, () => { throw new Error(`${nameOf(address)} does not answer`) })
    } finally {
      redis.disconnect()
    }
  }
}
