// One instance of the whole-stack chaos test, in a process of its own: Fastify and the plugin with its defaults, but for one group that
// keeps no log; a room for framed clients and a route for raw ones. Whatever a client sends goes to the groups that it names.
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import websocketGroups, { type BroadcastResult, type Data } from '../../../plugin.ts'
import { buildService } from '../../helpers/service.ts'
import { groups, volatile } from './groups.ts'
import { pieces } from './texts.ts'

export type Order = { readonly stop: true } | { readonly view: readonly string[] }

/** What an instance says of the cluster, by group. */
export type View = ReadonlyArray<{ readonly group: string, readonly count: number, readonly members: readonly string[] }>
export interface Answer { readonly port?: number, readonly view?: View, readonly unhandled?: readonly string[] }

const redis = JSON.parse(process.argv[2] ?? '') as string
const unhandled: string[] = []
for (const event of ['unhandledRejection', 'uncaughtException']) {
  process.on(event, (error: unknown) => unhandled.push(error instanceof Error ? error.stack ?? error.message : String(error)))
}

const { app, listen } = buildService({ level: 'silent' })
await app.register(websocketGroups, { redis, authenticate: token => ({ userId: token }), logs: { [volatile]: false } })

async function relay (data: Data): Promise<BroadcastResult> {
  const { to } = JSON.parse(String(data)) as { readonly to: string[] }
  return await app.registry.broadcastToGroup(to, data)
}

app.wsRoom('/room/:room', {
  group: ({ room }) => room,
  presence: true,
  mayJoin: () => true,
  onMessage: async (_connection, data) => await relay(data)
})

app.get('/raw/:rooms', { websocket: true, preHandler: app.wsAuth() }, app.wsHandler<{ rooms: string }>({
  async onConnect (connection) {
    let scope = 'cluster'
    for (const room of connection.params.rooms.split(',')) {
      if ((await app.registry.join(connection, room)).scope === 'local') scope = 'local'
    }
    connection.sendJson({ in: scope, id: connection.id })
  },
  onMessage: async (_connection, data) => await relay(data),
  onGap (connection, group, { reason }) { connection.sendJson({ gap: group, reason }) }
}))

const closing = new AbortController()
/** Streams, one after another, in one group after another. */
async function produce (): Promise<void> {
  async function * text (): AsyncGenerator<string> {
    for (const piece of pieces) {
      yield piece
      await sleep(20)
    }
  }
  for (let n = 0; !closing.signal.aborted; n++) {
    await app.registry.stream(groups[n % groups.length] ?? '', `${process.pid}-${n}`).pipe(text())
  }
}

async function view (groups: readonly string[]): Promise<View> {
  return await Promise.all(groups.map(async group => ({
    group,
    count: await app.registry.groupCount(group),
    members: (await app.registry.members(group)).map(({ connectionId }) => connectionId)
  })))
}

const answer = (message: Answer): void => { process.send?.(message) }
process.on('message', (order: Order) => {
  if ('view' in order) {
    view(order.view).then(seen => answer({ view: seen }), () => answer({ view: [] }))
  } else {
    closing.abort()
    void app.close().then(() => answer({ unhandled })).then(() => setTimeout(() => process.exit(0), 50))
  }
})
process.on('disconnect', () => process.exit(1))

await listen()
void produce()
answer({ port: (app.server.address() as AddressInfo).port })
