import { invalid, show } from '../options/rules.ts'
import type { Identity } from '../types.ts'

/** How a room names its groups: the option `group`. */
export type GroupOf = (params: Record<string, string>, identity: Identity | null) => unknown

/** Names groups by the path's parameter `room`, or by its only parameter. @throws {WebsocketGroupsError} WSG_OPTION_INVALID */
export function groupFromParams (path: string): GroupOf {
  const names = paramNames(path)
  const name = names.includes('room') ? 'room' : names[0]
  if (name === undefined || (name !== 'room' && names.length > 1)) {
    throw invalid(
      `wsRoom(${show(path)}) must have a parameter called room, or only one, or the option group; got ${names.length} parameters`
    )
  }
  return params => params[name]
}

/** Reads a path as find-my-way does: a name ends at a slash, a dash, a dot or a regular expression; two colons stand for a colon. */
function paramNames (path: string): string[] {
  const bare = path.replaceAll('::', '').replace(/\((?:[^()]|\([^()]*\))*\)/g, '/')
  return [...bare.matchAll(/:([^/:.-]+)/g)].map(match => (match[1] ?? '').replace(/\?$/, ''))
}

/**
 * Keeps room routes apart. The name of a group means the same everywhere: where `/chat/:room` and `/staff/:room` both name their groups by
 * the parameter, whoever may enter one may read the other, whatever its `authorize` says. So with more than one room route, each has to say
 * how it names its groups.
 */
export class RoomNames {
  readonly #paths: string[] = []
  #unnamed: string | undefined

  /** @throws {WebsocketGroupsError} WSG_OPTION_INVALID */
  add (path: string, named: boolean): void {
    const other = named ? this.#unnamed : this.#paths[0]
    if (other !== undefined) {
      throw invalid(
        `wsRoom(${show(path)}) and wsRoom(${show(other)}) could lead to the same group, so that who may enter one could read the other: ` +
        `give both the option group, such as group: params => \`${firstWord(path)}:\${params.room}\``
      )
    }
    this.#paths.push(path)
    if (!named) this.#unnamed = path
  }
}

function firstWord (path: string): string {
  return path.split('/').find(part => /^\w/.test(part)) ?? 'room'
}
