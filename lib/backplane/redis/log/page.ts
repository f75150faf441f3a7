import { logStart } from '../../position.ts'
import type { Envelope, GapReason, LogPage, LogPosition } from '../../backplane.ts'
import { decode, positionOf, previousNonce } from '../envelope.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/link.ts'
import { readLog } from '../membership/scripts.ts'

const Status = { follows: 0, epoch: 2, rewound: 3, trimmed: 4, none: 5 } as const
const reasons: Readonly<Record<number, GapReason>> = { [Status.epoch]: 'epoch', [Status.rewound]: 'rewound', [Status.trimmed]: 'trimmed' }

/** A message as it is in the log, with the nonce of the one before it. */
export interface LoggedEnvelope {
  readonly envelope: Envelope & { readonly position: LogPosition }
  readonly previousNonce: number
}

export interface RedisLogPage extends LogPage {
  readonly messages: readonly LoggedEnvelope['envelope'][]
  /** The last position that was read, which may be after the last of `messages`: what this version cannot decode has a place in the log, too. */
  readonly last: LogPosition
}

/** `since`: a position; `beginning`: from the earliest message that is kept; `undefined`: the latest ones. */
export async function readPage (link: Link, keys: Keys, group: string, since: LogPosition | undefined, limit: number): Promise<RedisLogPage> {
  const [status = Status.none, epoch = '', offset = 0, nonce = noNonce, entries = []] = await link.bytesScript(
    readLog, [keys.logMeta(group), keys.log(group)], [Buffer.from(since === undefined ? '$' : since.epoch, 'latin1'), since?.offset ?? 0, packNonce(since?.nonce ?? 0), limit]
  ) as [number?, Buffer?, number?, Buffer?, Buffer[]?]
  if (status === Status.none) {
    // No trace of a log that we had seen: its data is gone.
    const gap = since === undefined || since.epoch === '' ? undefined : 'epoch'
    return { gap, messages: [], before: logStart, end: logStart, last: logStart, more: false }
  }
  const top = { epoch: Buffer.from(epoch).toString('latin1'), offset, nonce: Buffer.from(nonce).readUInt32BE() }
  const messages = entries.map(bytes => decode(bytes)).filter(isLogged)
  const [first] = entries
  const latest = entries.at(-1)
  const end = latest === undefined ? top : positionOf(latest)
  const before = first === undefined ? top : { epoch: top.epoch, offset: positionOf(first).offset - 1, nonce: previousNonce(first) }
  return { gap: reasons[status], messages, before: before.offset === 0 ? logStart : before, end: top, last: end, more: end.offset < offset }
}

export function packNonce (nonce: number): Buffer {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32BE(nonce)
  return bytes
}

export function isLogged (envelope: Envelope | undefined): envelope is LoggedEnvelope['envelope'] {
  return envelope?.position !== undefined
}

export const noNonce = Buffer.alloc(4)
