import type { Target } from './backplane/backplane.ts'
import { assertGroupName, assertUserId } from './group-name.ts'

export const everyone: readonly Target[] = [{ kind: 'all', name: '' }]

/** @throws {WebsocketGroupsError} WSG_GROUP_NAME_INVALID */
export function groupTargets (group: string | readonly string[]): readonly Target[] {
  return Array.from(Array.isArray(group) ? new Set<unknown>(group) : [group], name => {
    assertGroupName(name)
    return { kind: 'group', name }
  })
}

/** @throws {WebsocketGroupsError} WSG_USER_ID_INVALID */
export function userTarget (userId: string): Target {
  assertUserId(userId)
  return { kind: 'user', name: userId }
}
