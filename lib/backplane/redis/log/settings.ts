import type { FastifyBaseLogger } from 'fastify'
import { BoundedMap } from '../../../bounded-map.ts'
import { oncePerMinute } from '../../../logging.ts'
import type { LogLimits } from '../../backplane.ts'

const packedBytes = 16
/** How long a difference is reported after it was last seen. */
const toldMs = 600_000
const maxTold = 100

export interface Difference {
  /** What the log keeps. */
  readonly used: LogLimits
  /** What another process would keep. */
  readonly smaller: LogLimits
}

/**
 * Lua: `differing(used, smaller)` makes what a script returns of two fields of a meta: both settings if a process with smaller ones
 * appended in the last ten minutes, else ''.
 */
export const luaDiffering = `
local function differing (used, smaller)
  if not used or not smaller or #used ~= 22 or #smaller ~= 22 then return '' end
  if redis.call('TIME')[1] - struct.unpack('>I6', smaller, 17) > 600 then return '' end
  return string.sub(used, 1, 16) .. string.sub(smaller, 1, 16)
end`

/** Packed settings, by settings object: a process has few of these. */
const packed = new WeakMap<LogLimits, Buffer>()

/** Settings as scripts take them: u32 messages, u48 bytes, u48 TTL in milliseconds. */
export function packSettings (limits: LogLimits): Buffer {
  const known = packed.get(limits)
  if (known !== undefined) return known
  const bytes = Buffer.allocUnsafe(packedBytes)
  bytes.writeUInt32BE(limits.maxMessages)
  bytes.writeUIntBE(limits.maxBytes, 4, 6)
  bytes.writeUIntBE(limits.ttlMs, 10, 6)
  packed.set(limits, bytes)
  return bytes
}

/** Reads two settings as scripts return them; `undefined` for anything else, which means that they do not differ. */
export function unpackSettings (bytes: Buffer | null | undefined): Difference | undefined {
  if (bytes?.length !== 2 * packedBytes) return undefined
  return { used: unpack(bytes, 0), smaller: unpack(bytes, packedBytes) }
}

function unpack (bytes: Buffer, at: number): LogLimits {
  return { maxMessages: bytes.readUInt32BE(at), maxBytes: bytes.readUIntBE(at + 4, 6), ttlMs: bytes.readUIntBE(at + 10, 6) }
}

/** Logs for which processes have different settings: the larger ones count, and `problem` names the groups. */
export class SettingsDifferences {
  readonly #groups: BoundedMap<string, Difference>
  readonly #warn: ((fields: object) => void) | undefined
  #latest = ''

  constructor (log?: FastifyBaseLogger, now?: () => number) {
    this.#warn = log && oncePerMinute(log, 'log_settings_differ')
    this.#groups = new BoundedMap({ maxWeight: maxTold, maxAgeMs: toldMs, now })
  }

  add (group: string, difference: Difference): void {
    if (!this.#groups.has(group)) this.#warn?.({ group, ...difference })
    this.#groups.set(group, difference)
    this.#latest = group
  }

  get problem (): string | undefined {
    const difference = this.#groups.get(this.#latest)
    if (difference === undefined) return undefined
    const { used, smaller } = difference
    const others = this.#groups.size === 1 ? '' : ` (and those of ${this.#groups.size - 1} more groups)`
    const both = `${show(used)}, which counts, and ${show(smaller)}`
    return `the log of group '${this.#latest}'${others} is published to with different settings: ${both}`
  }
}

function show ({ maxMessages, maxBytes, ttlMs }: LogLimits): string {
  return `{ maxMessages: ${maxMessages}, maxBytes: ${maxBytes}, ttlMs: ${ttlMs} }`
}
