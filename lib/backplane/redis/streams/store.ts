import {
  maxStreamsPerGroup, silentMs, type StoredStream, type StreamName, type StreamStore, type StreamWrite, type StreamWritten
} from '../../streams.ts'
import { encode } from '../envelope.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { shardedScript } from '../link/cluster/redirects.ts'
import { mending, type TypedKey } from '../link/mending.ts'
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
    const script = this.#link.sharded ? shardedScript(writeStream) : writeStream
    const [keys, index] = [this.#keysOf(write), this.#keys.streams(group)]
    const typedKeys = (): TypedKey[] => [...typed(keys), [index, 'ZCARD']]
    const written = await mending(this.#link, typedKeys, async () => await this.#link.bytesScript(script, [...keys, index], [
      epoch, head, at, text, end?.state ?? '', end?.json ?? '', keepMs, flag(renew), onlyIfSilentMs ?? silentMs,
      flag(onlyIfSilentMs !== undefined), id, maxStreamsPerGroup, this.#keys.channel(target), encode(envelope, target)
    ]) as Buffer)
    return written.toString() as StreamWritten
  }

  async read (name: StreamName, from: number): Promise<StoredStream | undefined> {
    const texts: Buffer[] = []
    for (let at = from, epoch: string | undefined; ;) {
      const part = await this.#readPart(name, at)
      if (part === undefined) return undefined
      // The stream was replaced, or lost its latest text, since the first part was read.
      if (epoch !== undefined && (part.epoch !== epoch || part.bytes < at)) return await this.read(name, from)
      texts.push(part.text)
      at += part.text.length
      epoch = part.epoch
      if (at >= part.bytes) return { ...part, text: Buffer.concat(texts) }
    }
  }

  /** Reads as much of the text as may be read at once, in its turn among the bulk reads. */
  async #readPart (name: StreamName, at: number): Promise<StoredStream | undefined> {
    const keys = this.#keysOf(name)
    const [epoch, head, state, json, bytes, silent, text] = await this.#link.bulk.read(async most => {
      return await mending(this.#link, () => typed(keys), async () => (
        await this.#link.bulkScript(readStream, keys, [at, at + most - 1, silentMs]) as Reply
      ))
    }, ([,,,, bytes = 0,, text = Buffer.alloc(0)]) => ({ bytes: text.length, full: at + text.length < bytes }))
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
    const index = this.#keys.streams(group)
    return await mending(this.#link, () => [[index, 'ZCARD']], async () => (
      await this.#link.script(listStreams, [index], [maxStreamsPerGroup]) as string[]
    ))
  }

  #keysOf ({ group, id }: StreamName): StreamKeys {
    return [this.#keys.streamText(group, id), this.#keys.streamHead(group, id)]
  }
}

type StreamKeys = readonly [text: string, head: string]

const typed = ([text, head]: StreamKeys): TypedKey[] => [[text, 'STRLEN'], [head, 'HLEN']]

/** Empty where there is no such stream. */
type Reply = readonly [
  epoch?: Buffer, head?: Buffer, state?: Buffer, json?: Buffer, bytes?: number, silent?: number, text?: Buffer
]
