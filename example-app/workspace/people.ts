import { Redis } from 'ioredis'

/** Who is behind a connection. */
interface Person {
  readonly userId: string
  readonly name: string
}

export type Role = 'owner' | 'member' | 'guest'

// From here on `connection.identity` is a Person everywhere, and `info` of each member is what the option `memberInfo` returns.
declare module 'fastify-websocket-groups' {
  interface Register {
    identity: Person
    memberInfo: Shown
  }
}
/** What others see of a member. */
export interface Shown { readonly name: string, readonly instance: string }

// For the demonstration only. A real service verifies a signed token here, with @fastify/jwt for example.
const tokens: ReadonlyMap<string, Person> = new Map([
  ['ann-token', { userId: 'ann', name: 'Ann Arbor' }],
  ['ben-token', { userId: 'ben', name: 'Ben Nevis' }],
  ['cleo-token', { userId: 'cleo', name: 'Cleo Patras' }],
  ['dan-token', { userId: 'dan', name: 'Dan Ube' }]
])

/** Returns `undefined` for an unknown token: the plugin then answers 401, before the upgrade. */
export function authenticate (token: string): Person | undefined {
  return tokens.get(token)
}

const firstRooms: Readonly<Record<string, Readonly<Record<string, Role>>>> = {
  general: { ann: 'owner', ben: 'member', cleo: 'member', dan: 'member' },
  design: { ann: 'member', ben: 'owner', cleo: 'guest' },
  board: { ann: 'owner', cleo: 'member' }
}

/**
 * Who may do what in which room, the same for all instances. Stands for your database: as this service has nothing but a Redis, each room
 * is a hash there.
 */
export class Roles {
  readonly #redis: Redis

  constructor (url: string) {
    this.#redis = new Redis(url)
  }

  /** Writes the roles that the demonstration begins with. */
  async begin (): Promise<void> {
    for (const [room, roles] of Object.entries(firstRooms)) await this.#redis.hset(keyOf(room), roles)
  }

  /** Resolves with the person's role, `undefined` for whoever may not enter the room. */
  async of (room: string, { userId }: Person): Promise<Role | undefined> {
    return await this.#redis.hget(keyOf(room), userId) as Role | null ?? undefined
  }

  /** Whether the person has one of these roles. */
  async has (room: string, person: Person, ...allowed: readonly Role[]): Promise<boolean> {
    const role = await this.of(room, person)
    return role !== undefined && allowed.includes(role)
  }

  /** The rooms of a person. */
  async roomsOf (person: Person): Promise<Array<{ readonly room: string, readonly role: Role }>> {
    const roles = await Promise.all(Object.keys(firstRooms).map(async room => ({ room, role: await this.of(room, person) })))
    return roles.flatMap(({ room, role }) => role === undefined ? [] : [{ room, role }])
  }

  async remove (room: string, userId: string): Promise<void> {
    await this.#redis.hdel(keyOf(room), userId)
  }

  close (): void {
    this.#redis.disconnect()
  }
}

const keyOf = (room: string): string => `workspace:roles:${room}`
