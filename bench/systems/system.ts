import type { Agent } from 'node:http'

/** What is compared: the same application, on one library or another. An instance puts each client into the group that it names. */
export interface System {
  readonly name: string
  /** What its clients speak: plain WebSocket, or engine.io and socket.io over one. */
  readonly protocol: 'ws' | 'socketio'
  /** Where the members of a group connect; `%u` is the number of the group. */
  readonly path: string
  serve (port: number, redisUrl: string, options?: ServeOptions): Promise<Instance>
  /** Another process of the application, which holds no clients. */
  publisher (redisUrl: string): Promise<Publisher>
}

export interface ServeOptions {
  /** Each client is told `joined` when it is in its group. */
  readonly announce?: boolean
  /** The messages of this run are binary: for systems that have to be told. */
  readonly binary?: boolean
}

interface Instance {
  stats (): Readonly<Record<string, number>>
  close (): Promise<void>
}

export interface Publisher {
  /** May return before the message is out; rejects when it is refused. */
  publish (group: string, data: string | Buffer): unknown
}

/** One that the drills know, too. */
export interface DrillSystem extends System {
  serve (port: number, redisUrl: string, options?: ServeOptions): Promise<DrillInstance>
  connect (options: ClientOptions, events: ClientEvents): Client
}

export interface DrillInstance extends Instance {
  /** Resolves when the message will not be lost on the way to Redis. */
  publish (group: string, text: string): Promise<void>
  /** Takes the instance out of service within that time; where a library has such a call. */
  drain? (overMs: number): Promise<void>
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

export const drillNames = ['ours', 'socketio', 'socketio-streams'] as const
export type DrillName = typeof drillNames[number]

/** `floor` is no system but a loop in C, see native/floor.c. */
const systemNames = [
  'ours-before', 'ours', 'ours-volatile', 'ours-interval', 'ours-heartbeat', 'ours-users', 'ours-users-volatile', 'ours-observed',
  'ours-unqueued', 'ours-sdk',
  'socketio', 'socketio-sharded', 'socketio-streams', 'mqemitter', 'ws-loop', 'bare', 'bun'
] as const
export type SystemName = typeof systemNames[number]
export const names = [...systemNames, 'floor'] as const
export type Name = typeof names[number]
const onDemand: readonly string[] = [
  'ours-before', 'ours-interval', 'ours-heartbeat', 'ours-users', 'ours-users-volatile', 'ours-observed', 'ours-unqueued', 'ours-sdk'
]
/** Those that have groups across instances, and are measured without being asked for. */
export const groupNames = systemNames.filter(name => name !== 'bare' && !onDemand.includes(name))

/** Each process loads the one that it runs. */
export async function load (name: SystemName): Promise<System> {
  const module = await import(`./${name}.ts`) as { system: System }
  return module.system
}

export async function loadForDrill (name: DrillName): Promise<DrillSystem> {
  return await load(name) as DrillSystem
}

/** Those of `all` that a list names. */
export function parseNames<Some extends string> (list: string | undefined, all: readonly Some[]): Some[] {
  const wanted = list?.split(',') ?? all
  const unknown = wanted.find(name => !(all as readonly string[]).includes(name))
  if (unknown !== undefined) throw new Error(`no system "${unknown}"; there are ${all.join(', ')}`)
  return all.filter(name => wanted.includes(name))
}
