import type { Agent } from 'node:http'

/** What is compared: the same application, on one library or another. An instance puts each client into the group that it names. */
export interface System {
  readonly name: string
  serve (port: number, redisUrl: string): Promise<Instance>
  connect (options: ClientOptions, events: ClientEvents): Client
}

export interface Instance {
  publish (group: string, text: string): Promise<void>
  stats (): Readonly<Record<string, number>>
  close (): Promise<void>
}

export interface ClientOptions {
  readonly group: string
  /** The network. */
  readonly agent: Agent
  /** An attempt to come back waits a random time of about that long. @default the library's */
  readonly backoffMs: number | undefined
}

export interface ClientEvents {
  message (text: string): void
  /** Connected and in the group, at first or again. */
  open (): void
  broken (): void
  /** The library says that messages are lost, or may be. */
  signalled (): void
}

export interface Client {
  close (): void
}

const names = ['ours', 'socketio', 'socketio-streams'] as const
export type SystemName = typeof names[number]

/** Each process loads the one that it runs. */
export async function load (name: SystemName): Promise<System> {
  const module = await import(`./${name}.ts`) as { system: System }
  return module.system
}

export function parseNames (list: string | undefined): SystemName[] {
  const wanted = list?.split(',') ?? names
  return names.filter(name => wanted.includes(name))
}
