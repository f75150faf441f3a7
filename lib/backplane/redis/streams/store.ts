import {
  maxStreamsPerGroup, silentMs, type StoredStream, type StreamName, type StreamStore, type StreamWrite, type StreamWritten
} from '../../streams.ts'
import { encode } from '../envelope.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { shardedScript } from '../link/cluster/redirects.ts'
import { listStreams, readStream, writeStream } from './scripts.ts'

/** The growing texts of one partition: each is a string that is appended to, with a hash beside it. */
export class RedisStreams implements StreamStore {
  readonly #link: Link
  readonly #keys: Keys

  constructor (link: Link, keys: Keys) {
    this.#link = link
    this.#keys = keys
  }

  async write (write: StreamWrite): Promise<StreamWritten> {
    const { group, id, epoch, head = '', at, text, end, keepMs, renew, onlyIfSilentMs, envelope } = write
    const target = { kind: 'group', name: group } as const
    const flag = (value: boolean): string => value ? '1' : ''
    const written = await this.#link.bytesScript(this.#link.sharded ? shardedScript(writeStream) : writeStream, [
      this.#keys.streamText(group, id), this.#keys.streamHead(group, id), this.#keys.streams(group)
    ], [
      epoch, head, at, text, end?.state ?? '', end?.json ?? '', keepMs, flag(renew), onlyIfSilentMs ?? silentMs,
      flag(onlyIfSilentMs !== undefined), id, maxStreamsPerGroup, this.#keys.channel(target), encode(envelope, target)
    ]) as Buffer
    return written.toString() as StreamWritten
  }

  async read ({ group, id }: StreamName, from: number): Promise<StoredStream | undefined> {
    const keys = [this.#keys.streamText(group, id), this.#keys.streamHead(group, id)]
    const [epoch, head, state, json, bytes, silent, text] = await this.#link.bulkScript(readStream, keys, [from, silentMs]) as Reply
    if (epoch === undefined || head === undefined || text === undefined) return undefined
    const end = String(state)
    return {
      epoch: epoch.toString(),
      head: head.toString(),
      end: end === '' ? undefined : { state: end as NonNullable<StoredStream['end']>['state'], json: String(json) },
      text,
      bytes: Number(bytes),
      silent: silent === 1
    }
  }

  async list (group: string): Promise<readonly string[]> {
    return await this.#link.script(listStreams, [this.#keys.streams(group)], [maxStreamsPerGroup]) as string[]
  }
}

/** Empty where there is no such stream. */
type Reply = readonly [
  epoch?: Buffer, head?: Buffer, state?: Buffer, json?: Buffer, bytes?: number, silent?: number, text?: Buffer
]
