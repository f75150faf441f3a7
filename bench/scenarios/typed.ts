import Fastify, { type FastifyInstance } from 'fastify'
import websocketGroups from 'fastify-websocket-groups'
import type { AddressInfo } from 'node:net'
import type { DrillOptions } from '../options.ts'
import type { Result } from '../results.ts'
import { start } from '../rig/child.ts'
import type { Talkers } from '../rig/talkers.ts'
import { until } from '../rig/until.ts'

const kinds = ['untyped', 'typed'] as const
type Kind = (typeof kinds)[number]

/**
 * What a message by name costs the process of the service, beside the same message that `onMessage` parses, checks and answers by hand. In
 * memory, so that nothing but this differs; clients are in another process. With many members: what an event costs for each of them.
 */
export async function typed ({ number }: DrillOptions): Promise<Result> {
  const [rounds, messages, members] = [number('rounds', 7), number('messages', 500), number('members', 500)]
  const app = Fastify()
  await app.register(websocketGroups, { limits: false })
  routes(app)
  await app.listen({ port: 0, host: '127.0.0.1' })
  const clients = await start<Talkers>('./talkers.ts')
  const text = 'x'.repeat(number('bytes', 100))

  /** CPU of this process, in microseconds for each delivery. */
  const costOf = async (kind: Kind, room: string, many: number, count: number): Promise<number> => {
    await clients.call.open(`ws://127.0.0.1:${(app.server.address() as AddressInfo).port}/${kind}/${room}`, many)
    await until(async () => await app.registry.groupCount(`${kind}:${room}`) === many, 60_000)
    await clients.call.talk(Math.ceil(count / 10), text)
    const before = process.cpuUsage()
    await clients.call.talk(count, text)
    const { user, system } = process.cpuUsage(before)
    await clients.call.close()
    await until(async () => app.registry.count() === 0, 60_000)
    return (user + system) / (count * many)
  }

  const rows = []
  for (const [what, many, count] of [['to its sender alone', 1, messages * 20], ['to many', members, messages]] as const) {
    const costs: Record<Kind, number[]> = { untyped: [], typed: [] }
    for (let round = 0; round < rounds; round++) {
      const order = round % 2 === 0 ? kinds : [...kinds].reverse()
      for (const kind of order) costs[kind].push(await costOf(kind, `${many}-${round}`, many, count))
    }
    const [byHand, byName] = [median(costs.untyped), median(costs.typed)]
    rows.push({
      what, members: many, 'untyped, us per delivery': shown(byHand), 'typed, us per delivery': shown(byName), ratio: shown(byName / byHand)
    })
  }
  await clients.end('SIGTERM')
  await app.close()
  return { title: `messages by name, ${text.length} bytes; medians of ${rounds} rounds`, rows, raw: rows }
}

function routes (app: FastifyInstance): void {
  const say = { type: 'object', required: ['text'], properties: { text: { type: 'string', maxLength: 2_000 } } } as const
  const messages = app.wsMessages({
    // As in production.
    validateEvents: false,
    messages: {
      say: {
        data: say,
        reply: { type: 'object', properties: { position: { type: 'string' } } } as const,
        async handler ({ data, emit }) {
          const { position } = await emit('said', { text: (data as { text: string }).text })
          return { position }
        }
      }
    },
    events: { said: say }
  })
  app.wsRoom('/typed/:room', { auth: false, group: ({ room }) => `typed:${room}`, messages })
  app.wsRoom('/untyped/:room', {
    auth: false,
    group: ({ room }) => `untyped:${room}`,
    async onMessage (connection, message, group) {
      const { type, data, id } = JSON.parse(String(message)) as { type?: unknown, data?: { text?: unknown }, id?: unknown }
      const text = data?.text
      if (type !== 'say' || typeof text !== 'string' || text.length > 2_000) throw Object.assign(new Error('wrong'), { statusCode: 400 })
      const event = JSON.stringify({ type: 'said', data: { text } })
      const { position } = await app.registry.broadcastToGroup(group, event, { from: connection })
      connection.send(JSON.stringify({ type: 'reply', id, data: { position } }))
    }
  })
}

function median (values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN
}

function shown (value: number): number {
  return Math.round(value * 1_000) / 1_000
}
