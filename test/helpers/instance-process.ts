// One application with the plugin in a process of its own; started by instance.ts, which says what to do over IPC.
import { LogController, type FastifyInstance } from 'fastify'
import type { AddressInfo } from 'node:net'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import websocketGroups, { type BroadcastOptions, type Connection, type WebsocketGroupsOptions } from '../../plugin.ts'
import { buildService, userOf, type LogLine } from './service.ts'

type Answers = Awaited<ReturnType<typeof start>>['answers']

/** Everything that a test may ask; the methods' types are those of the answers, which must survive JSON. */
export type Question = keyof Answers
export type Arguments<Name extends Question> = Parameters<Answers[Name]>
export type Answer<Name extends Question> = Awaited<ReturnType<Answers[Name]>>

export interface Timed { readonly ms: number, readonly value?: unknown, readonly code?: string }

export interface Ready { readonly port: number, readonly instanceId: string, readonly bootMs: number }

const warn = 40
const faults: string[] = []
/** What the hooks were called for. */
const told: string[] = []
const note = (what: string) => (name: string): void => { told.push(`${what} ${name}`) }
const hooks = { onOccupied: note('occupied'), onVacated: note('vacated'), onUserOnline: note('online'), onUserOffline: note('offline') }
process.on('unhandledRejection', reason => { faults.push(`unhandledRejection: ${String(reason)}`) })
process.on('uncaughtException', error => { faults.push(`uncaughtException: ${error.stack ?? String(error)}`) })
// The test's process is gone, however it went.
process.on('disconnect', () => process.exit(1))

async function start (port: number, options: WebsocketGroupsOptions, hooked: boolean) {
  const { app, logs, listen } = buildService({
    logController: new LogController({ disableRequestLogging: true }), routerOptions: { maxParamLength: 5_000 }
  })
  await app.register(websocketGroups, { authenticate: userOf, ...hooked ? hooks : {}, ...options })

  // `/ws/a,b` joins a and b, and says so to a client that speaks no protocol: `joined <connection id> <scope>`. `/ws/-` joins nothing.
  app.get('/ws/:rooms', { websocket: true, preHandler: app.wsAuth({ required: false }) }, app.wsHandler<{ rooms: string }>({
    async onConnect (connection) {
      const rooms = connection.params.rooms === '-' ? [] : connection.params.rooms.split(',')
      const results = await Promise.all(rooms.map(async room => await app.registry.join(connection, room)))
      if (!connection.framed) {
        connection.send(`joined ${connection.id} ${results.every(({ scope }) => scope === 'cluster') ? 'cluster' : 'local'}`)
      }
    },
    mayJoin: () => true,
    onMessage () {}
  }))

  const began = performance.now()
  await listen(port)
  const ready: Ready = {
    port: (app.server.address() as AddressInfo).port, instanceId: app.registry.instanceId, bootMs: performance.now() - began
  }
  return { ready, answers: makeAnswers(app, logs) }
}

function makeAnswers (app: FastifyInstance, logs: readonly LogLine[]) {
  const { registry } = app
  const lag = monitorEventLoopDelay({ resolution: 5 })

  const timed = async (run: () => Promise<unknown>): Promise<Timed> => {
    const began = performance.now()
    try {
      const value = await run()
      return { ms: performance.now() - began, value }
    } catch (error) {
      return { ms: performance.now() - began, code: (error as { code?: string }).code ?? String(error) }
    }
  }

  const answers = {
    health: async () => registry.health(),
    stats: async () => registry.stats(),
    faults: async () => faults,
    told: async () => told,
    people: async (group: string) => (await registry.presence(group, { maxAgeMs: 0 })).map(({ userId }) => userId),
    /** Warnings and errors, and how often each was logged. */
    warnings: async () => {
      const counts: Record<string, number> = {}
      for (const { level, msg } of logs) if (level >= warn) counts[msg] = (counts[msg] ?? 0) + 1
      return counts
    },
    logged: async (msg: string) => logs.filter(line => line.msg === msg),
    broadcast: async (
      group: string | string[], data: string, options?: BroadcastOptions
    ) => await registry.broadcastToGroup(group, data, options),
    broadcastToAll: async (data: string) => await registry.broadcastToAll(data),
    sendTo: async (connectionId: string, data: string) => await registry.sendTo(connectionId, data),
    sendToUser: async (userId: string, data: string) => await registry.sendToUser(userId, data),
    disconnect: async (connectionId: string) => await registry.disconnect(connectionId),
    join: async (connectionId: string, group: string) => await registry.join(connectionId, group),
    leave: async (connectionId: string, group: string) => await registry.leave(connectionId, group),
    groupCount: async (group: string) => await registry.groupCount(group),
    members: async (group: string) => (await registry.members(group)).map(({ connectionId }) => connectionId),
    /** Who is here, by group: the truth that every reading is compared with. */
    local: async () => byGroup(registry.all()),
    /** What the cluster says of these groups, read from Redis and not from memory. */
    view: async (groups: string[]) => {
      const views: Array<{ group: string, count: number, members: string[] }> = []
      for (let start = 0; start < groups.length; start += 200) {
        views.push(...await Promise.all(groups.slice(start, start + 200).map(async group => {
          const [count, members] = await Promise.all(
            [registry.groupCount(group, { maxAgeMs: 0 }), registry.members(group, { maxAgeMs: 0 })]
          )
          return { group, count, members: members.map(({ connectionId }) => connectionId) }
        })))
      }
      return views
    },
    /** The same call, one after another: how long each took, measured here. */
    time: async (
      what: 'join' | 'leave' | 'broadcast' | 'broadcast volatile' | 'members' | 'groupCount' | 'sendTo' | 'sendToUser', args: string[],
      times = 1
    ): Promise<Timed[]> => {
      const [first = '', second = ''] = args
      const run = {
        join: async () => await registry.join(first, second),
        leave: async () => await registry.leave(first, second),
        broadcast: async () => await registry.broadcastToGroup(first, second),
        'broadcast volatile': async () => await registry.broadcastToGroup(first, second, { volatile: true }),
        members: async () => await registry.members(first),
        groupCount: async () => await registry.groupCount(first),
        sendTo: async () => await registry.sendTo(first, second),
        sendToUser: async () => await registry.sendToUser(first, second)
      }[what]
      const calls: Timed[] = []
      for (let call = 0; call < times; call++) calls.push(await timed(run))
      return calls
    },
    /** Begins a stream of tokens, which stays open. */
    openStream: async (group: string, id: string, text: string) => registry.stream(group, id).append(text),
    /** Broadcasts `<label> <number>` to the group until told to stop; resolves with how it went. */
    stream: async (group: string, label: string, everyMs: number, forMs: number, options?: BroadcastOptions) => {
      const scopes: Record<string, number> = {}
      let slowestMs = 0
      const until = performance.now() + forMs
      const running: Array<Promise<void>> = []
      let count = 0
      while (performance.now() < until) {
        running.push(timed(
          async () => await registry.broadcastToGroup(group, `${label} ${count++}`, options)
        ).then(({ ms, value, code }) => {
          slowestMs = Math.max(slowestMs, ms)
          const scope = code ?? (value as { scope: string }).scope
          scopes[scope] = (scopes[scope] ?? 0) + 1
        }))
        await new Promise(resolve => setTimeout(resolve, everyMs))
      }
      await Promise.all(running)
      return { count, scopes, slowestMs }
    },
    /** Many broadcasts, a thousand in one turn of the event loop. */
    burst: async (group: string, label: string, count: number, options?: BroadcastOptions) => {
      const scopes: Record<string, number> = {}
      for (let sent = 0; sent < count;) {
        const batch = Array.from(
          { length: Math.min(1_000, count - sent) }, async () => await registry.broadcastToGroup(group, `${label} ${sent++}`, options)
        )
        for (const { scope } of await Promise.all(batch)) scopes[scope] = (scopes[scope] ?? 0) + 1
        await new Promise(resolve => setImmediate(resolve))
      }
      return scopes
    },
    /** Each connection here joins this many groups, all at once: its own, or the same as the others. How many joins ended in which way. */
    joinStorm: async (groupsEach: number, which: 'own' | 'shared') => {
      const ends: Record<string, number> = {}
      await Promise.all(registry.all().flatMap((connection, one) => Array.from({ length: groupsEach }, async (_, n) => {
        const group = which === 'own' ? `own ${one} ${n}` : `shared ${n}`
        const { value, code = (value as { scope: string }).scope } = await timed(async () => await registry.join(connection, group))
        ends[code] = (ends[code] ?? 0) + 1
      })))
      return ends
    },
    /** Longest event loop delay in milliseconds since the last time this was asked. */
    lag: async () => {
      lag.enable()
      const longest = lag.max / 1e6
      lag.reset()
      return longest
    },
    /** Blocks the event loop. */
    stall: async (ms: number) => {
      const until = performance.now() + ms
      while (performance.now() < until) { /* busy */ }
    },
    heap: async () => {
      setFlagsFromString('--expose-gc')
      const gc = runInNewContext('gc') as () => void
      gc()
      gc()
      return process.memoryUsage().heapUsed
    },
    /** From now on this instance owes an answer to each question of this name. */
    neverAnswer: async (name: string) => { registry.instances.on(name as never, async () => await new Promise(() => {})) },
    drain: async (overMs: number) => await registry.drain({ overMs }),
    close: async () => await app.close()
  }
  return answers
}

function byGroup (connections: readonly Connection[]): Record<string, string[]> {
  const groups: Record<string, string[]> = {}
  for (const { id, groups: joined } of connections) for (const group of joined) (groups[group] ??= []).push(id)
  return groups
}

const failure =
  (error: unknown): { message: string, code?: string } => ({ message: (error as Error).message, code: (error as { code?: string }).code })

interface Start { readonly start: WebsocketGroupsOptions, readonly port: number, readonly hooks: boolean }

let answers: Answers | undefined
process.on('message', (message: Start | { id: number, name: Question, args: never[] }) => {
  if ('start' in message) {
    const began = performance.now()
    start(message.port, message.start, message.hooks).then(started => {
      answers = started.answers
      process.send?.({ ready: started.ready })
    }, error => process.send?.({ refused: { ...failure(error), afterMs: performance.now() - began } }))
    return
  }
  const { id, name, args } = message
  const ask = answers?.[name] as ((...args: never[]) => Promise<unknown>) | undefined
  Promise.resolve(ask?.(...args)).then(value => process.send?.({ id, value }), error => process.send?.({ id, error: failure(error) }))
})
process.send?.({ listening: true })
