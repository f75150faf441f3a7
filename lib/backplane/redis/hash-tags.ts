import { userOfLog } from '../user-log.ts'

/** How many slots a Redis Cluster divides its keys into. */
export const slotCount = 16_384

const alphabet = '0123456789abcdefghijklmnopqrstuvwxyz'

const crcTable = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8
  for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000) === 0 ? crc << 1 : (crc << 1) ^ 0x1021
  return crc
})

/** The slot of a hash tag of ASCII characters: CRC16 (XMODEM) modulo the number of slots. */
export function slotOf (tag: string): number {
  let crc = 0
  for (let at = 0; at < tag.length; at++) crc = ((crc << 8) & 0xffff) ^ (crcTable[((crc >> 8) ^ tag.charCodeAt(at)) & 0xff] ?? 0)
  return crc % slotCount
}

/**
 * Makes one hash tag per partition. Their slots are evenly spaced, so masters that share the slots evenly share the partitions evenly,
 * however many masters there are; tags that merely count up would leave some masters with twice the work of others. The tags depend on the
 * number of partitions alone: all instances compute them, and the names in Redis contain them.
 */
export function hashTags (partitions: number): string[] {
  const missing = new Map<number, number>()
  for (let index = 0; index < partitions; index++) missing.set(Math.floor((index + 0.5) * slotCount / partitions), index)
  const tags = new Array<string>(partitions)
  for (let number = 0; missing.size > 0; number++) {
    const tag = tagOf(number)
    const slot = slotOf(tag)
    const index = missing.get(slot)
    if (index === undefined) continue
    missing.delete(slot)
    tags[index] = tag
  }
  return tags
}

/** The partition of a name, the same for all instances: FNV-1a over its UTF-16 code units, mixed once more for the low bits. */
export function partitionOf (group: string, partitions: number): number {
  // The log of a user lies where everything of the user does.
  const name = userOfLog(group) ?? group
  let hash = 0x811c9dc5
  for (let at = 0; at < name.length; at++) hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193)
  hash ^= hash >>> 15
  hash = Math.imul(hash, 0x2c1b3c6d)
  hash ^= hash >>> 13
  return (hash >>> 0) % partitions
}

/** What stands between the first braces of a key or channel; '' without braces. */
export function hashTagOf (name: string): string {
  const start = name.indexOf('{') + 1
  return start === 0 ? '' : name.slice(start, name.indexOf('}', start))
}

/** '0', '1', … 'z', '00', '01', …: every string of the alphabet, the short ones first. */
function tagOf (number: number): string {
  let tag = ''
  for (let rest = number; rest >= 0; rest = Math.floor(rest / alphabet.length) - 1) tag = alphabet.charAt(rest % alphabet.length) + tag
  return tag
}
