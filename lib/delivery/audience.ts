import type { Audience, Target } from '../backplane/backplane.ts'
import { WebsocketGroupsError } from '../errors.ts'
import { assertGroupName, assertUserId } from '../group-name.ts'
import { ownerOf } from '../ids.ts'
import type { BroadcastOptions } from '../types.ts'
import { userOfLog } from '../backplane/user-log.ts'

/** What `except` needs of a connection. */
export interface Named { readonly id: string, readonly sessionName?: string | undefined }

type Excepted = Named | string | { readonly userId: string } | { readonly group: string }

const maxTags = 32
const maxTagBytes = 64
/** They travel with the message, to every instance. */
const maxExcepted = 10_000

/**
 * The ids in `except`, and the names of the sessions behind them: a client that is back with another connection is still excluded. Text
 * that is not a connection id excludes nobody, and does not travel. `find` knows the connections of this instance.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID
 */
export function exceptIds (except: BroadcastOptions['except'], find: (id: string) => Named | undefined): readonly string[] {
  const ids: string[] = []
  for (const one of listOf(except)) {
    if (typeof one === 'object' && !('id' in one)) continue
    const id = typeof one === 'string' ? one : one.id
    if (ownerOf(id) === undefined) continue
    ids.push(id)
    // The object comes first: it knows its session also when its socket is closed.
    const { sessionName } = typeof one === 'object' && one.sessionName !== undefined ? one : find(id) ?? {}
    if (sessionName !== undefined) ids.push(sessionName)
  }
  return ids
}

/**
 * Returns which connections behind its targets a message is for; `undefined` when it is for all of them but those in `except`.
 * @throws {WebsocketGroupsError} WSG_USER_ID_INVALID, WSG_GROUP_NAME_INVALID, WSG_OPTION_INVALID
 */
export function audienceOf (targets: readonly Target[], { except, filter }: BroadcastOptions): Audience | undefined {
  if (filter !== undefined) assertTags(filter.tags, 'filter.tags')
  const [exceptUsers, exceptGroups]: [string[], string[]] = [[], []]
  for (const one of listOf(except)) {
    if (typeof one === 'string' || 'id' in one) continue
    if ('group' in one) {
      assertGroupName(one.group)
      exceptGroups.push(one.group)
    } else {
      assertUserId(one.userId)
      exceptUsers.push(one.userId)
    }
  }
  if (filter === undefined && exceptUsers.length === 0 && exceptGroups.length === 0) return undefined
  const groups = targets.filter(({ kind, name }) => kind === 'group' && userOfLog(name) === undefined).map(({ name }) => name)
  return {
    ...(exceptUsers.length === 0 ? {} : { exceptUsers }),
    ...(exceptGroups.length === 0 ? {} : { exceptGroups }),
    ...(filter === undefined ? {} : { tags: filter.tags, ...(groups.length === 0 ? {} : { taggedIn: groups }) })
  }
}

/** @throws {WebsocketGroupsError} WSG_OPTION_INVALID */
export function assertTags (tags: unknown, name: string): asserts tags is readonly string[] {
  const isTag = (tag: unknown): boolean => typeof tag === 'string' && tag !== '' && Buffer.byteLength(tag) <= maxTagBytes
  if (Array.isArray(tags) && tags.length <= maxTags && tags.every(isTag)) return
  throw new WebsocketGroupsError('WSG_OPTION_INVALID', `${name} must be an array of up to ${maxTags} strings of 1 to ${maxTagBytes} bytes`)
}

function listOf (except: BroadcastOptions['except']): readonly Excepted[] {
  if (except === undefined) return []
  const all = (Array.isArray(except) ? except : [except]) as readonly Excepted[]
  if (all.length <= maxExcepted) return all
  const detail = `except must name at most ${maxExcepted} (got ${all.length}): except a group, or filter by tags`
  throw new WebsocketGroupsError('WSG_OPTION_INVALID', detail)
}
