import { WebsocketGroupsError } from '../errors.ts'
import { show } from '../options/rules.ts'
import type { PageOptions } from '../types.ts'

const defaultLimit = 1_000
const maxLimit = 10_000

export interface Page<Item> { readonly items: readonly Item[], readonly cursor: string | undefined }

/**
 * Returns one page of a list that is read as a whole each time: the items after those of the previous page, in the order of their keys.
 * Items that come or go between two pages do not shift the others.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID
 */
export function pageOf<Item> (all: Iterable<Item>, keyOf: (item: Item) => string, options: PageOptions): Page<Item> {
  const { limit = defaultLimit } = options
  const rest = itemsAfter(all, keyOf, options)
  const items = rest.slice(0, limit)
  const last = rest.length > limit ? items.at(-1) : undefined
  return { items, cursor: last === undefined ? undefined : Buffer.from(keyOf(last)).toString('base64url') }
}

/**
 * Returns the items of one page and the next item, if there is one: enough for a caller who merges the lists of several instances into a
 * page.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID
 */
export function itemsAfter<Item> (
  all: Iterable<Item>, keyOf: (item: Item) => string, { cursor, limit = defaultLimit }: PageOptions
): Item[] {
  if (!Number.isInteger(limit) || limit < 1 || limit > maxLimit) {
    throw new WebsocketGroupsError('WSG_OPTION_INVALID', `limit must be an integer from 1 to ${maxLimit}, got ${show(limit)}`)
  }
  const after = cursor === undefined ? '' : parseCursor(cursor)
  const found: Array<readonly [key: string, item: Item]> = []
  // Only the first ones are kept and put in order: the list may be a thousand times as long as the page.
  const firstOnes = (): string | undefined => {
    found.sort(([a], [b]) => a < b ? -1 : 1)
    found.length = Math.min(found.length, limit + 1)
    return found.length > limit ? found[limit]?.[0] : undefined
  }
  let last: string | undefined
  for (const item of all) {
    const key = keyOf(item)
    if (key <= after || (last !== undefined && key > last)) continue
    if (found.push([key, item]) > 2 * limit + 1) last = firstOnes()
  }
  firstOnes()
  return found.map(([, item]) => item)
}

function parseCursor (cursor: unknown): string {
  if (typeof cursor === 'string' && /^[\w-]+$/.test(cursor)) return Buffer.from(cursor, 'base64url').toString()
  throw new WebsocketGroupsError('WSG_OPTION_INVALID', 'cursor must be that of an earlier page')
}
