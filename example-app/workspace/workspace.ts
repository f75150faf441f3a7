import { Type, type Static, type TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify from 'fastify'
import websocketGroups from 'fastify-websocket-groups'
import groupsHealth from 'fastify-websocket-groups/health'
import groupsMetrics from 'fastify-websocket-groups/metrics'
import { randomUUID } from 'node:crypto'
import { contract } from './contract.ts'
import { Jobs } from './jobs.ts'
import { model } from './model.ts'
import { page } from './page.ts'
import { authenticate, Roles } from './people.ts'

interface WorkspaceOptions {
  /** URL of the Redis that joins the instances. */
  readonly redis: string
  /** A name for this instance, for its log and for the page. */
  readonly instance: string
  readonly logLevel?: string | undefined
}

export type Workspace = Awaited<ReturnType<typeof buildWorkspace>>['workspace']

const Text = Type.String({ minLength: 1, maxLength: 2_000 })
const UserId = Type.String({ maxLength: 100 })
const Said = Type.Object({ from: UserId, text: Text })
type Said = Static<typeof Said>
const Position = Type.String({ maxLength: 100 })

/** One instance, ready to listen. Each feature is a region, or several of the same name. */
export async function buildWorkspace ({ redis, instance, logLevel = 'info' }: WorkspaceOptions) {
  const app = Fastify({ logger: { level: logLevel, base: { instance } }, forceCloseConnections: true })
    .withTypeProvider<TypeBoxTypeProvider>()
  const roles = new Roles(redis)
  const jobs = new Jobs(redis)
  app.addHook('onClose', async () => {
    roles.close()
    jobs.close()
  })

  await app.register(websocketGroups, {
    redis,
    authenticate,
    // #region Who is online
    memberInfo: ({ identity }) => ({ name: identity?.name ?? '', instance }),
    // #endregion
    // #region Rate limits
    limits: { messages: { perSecond: 20, burst: 60 }, connectionsPerUser: 20 },
    // #endregion
    // #region History pages
    log: { maxMessages: 5_000, ttlMs: 24 * 3_600_000 },
    // #endregion
    instanceLabel: instance
  })
  // #region Metrics
  await app.register(groupsMetrics)
  await app.register(groupsHealth)
  // #endregion
  await app.register(page)
  await app.register(contract)

  const workspace = app.wsMessages({
    auth: true,
    messages: {
      // #region Validated messages
      say: {
        data: Type.Object({ text: Text }),
        async handler ({ data: { text }, connection: { identity }, emit }) {
          await emit('said', { from: identity.userId, text })
        },
        // #endregion
        // #region Rate limits
        limit: { perSecond: 2, burst: 10 },
        // #endregion
        // #region Private rooms with roles
        authorize: async (person, { group }) => await roles.has(group, person, 'owner', 'member')
        // #endregion
      },
      // #region Typing
      typing: {
        async handler ({ connection, emit }) {
          await emit('typing', { from: connection.identity.userId }, { volatile: true, except: connection })
        }
      },
      // #endregion
      // #region Read receipts
      read: {
        data: Type.Object({ upTo: Position }),
        async handler ({ data: { upTo }, connection: { identity }, emit }) {
          await emit('read', { by: identity.userId, upTo })
        }
      },
      // #endregion
      // #region Direct messages
      whisper: {
        data: Type.Object({ to: UserId, text: Text }),
        async handler ({ data: { to, text }, connection: { identity: { userId: from } }, emitToUser }) {
          // To all devices of both.
          for (const user of new Set([to, from])) await emitToUser(user, 'whispered', { from, to, text })
        }
      },
      // #endregion
      // #region Notifications from a worker
      report: { handler: async ({ connection, group: room }) => await jobs.add({ userId: connection.identity.userId, room }) },
      // #endregion
      // #region Kick
      kick: {
        data: Type.Object({ userId: UserId }),
        authorize: async (person, { group }) => await roles.has(group, person, 'owner'),
        async handler ({ data: { userId }, connection: { identity }, group }) {
          await roles.remove(group, userId)
          await app.registry.leave({ userId }, group, { reason: `${identity.name} took you out` })
        }
      },
      // #endregion
      // #region Request and reply
      search: {
        data: Type.Object({ text: Text }),
        reply: Type.Array(Type.Object({ from: Type.String(), text: Type.String(), position: Position })),
        async handler ({ data, group }) {
          const { messages } = await app.registry.history(group, { reverse: true, limit: 1_000 })
          const events = messages.map(({ data, position }) => ({ position, ...JSON.parse(String(data)).data as Partial<Said> }))
          return events.flatMap(({ from = '', text, position }) => text?.includes(data.text) ? { from, text, position } : [])
        }
      },
      // #endregion
      // #region Answers of a model
      ask: {
        data: Type.Object({ prompt: Text }),
        authorize: async (person, { group }) => await roles.has(group, person, 'owner', 'member'),
        handler ({ data: { prompt }, connection, group }) {
          const stream = app.registry.stream(group, randomUUID(), { owner: connection, meta: { prompt, at: Date.now() } })
          void stream.pipe(model(prompt, { signal: stream.signal }))
        }
      }
      // #endregion
    },
    events: {
      // #region Validated messages
      said: Said,
      // #endregion
      // #region Typing
      typing: Type.Object({ from: UserId }),
      // #endregion
      // #region Read receipts
      read: Type.Object({ by: UserId, upTo: Position }),
      // #endregion
      // #region Direct messages
      whispered: Type.Object({ from: UserId, to: UserId, text: Text }),
      // #endregion
      // #region Notifications from a worker
      notified: Type.Object({ text: Text })
      // #endregion
    }
  })

  // #region Private rooms with roles
  app.get('/rooms', { preHandler: app.wsAuth() }, async ({ identity }) => identity && await roles.roomsOf(identity))
  app.wsRoom('/ws/:room', {
    auth: { authorize: async (person, { params: { room } }) => await roles.of(room, person) !== undefined },
    messages: workspace,
    // #endregion
    // #region Who is online
    presence: true,
    onJoin: async connection => await app.registry.join(connection, 'everyone'),
    // #endregion
    // #region History pages
    mayRead: ({ groups }, group) => groups.includes(group),
    // #endregion
    // #region Answers of a model
    mayStop: async ({ identity }, { group }) => await roles.has(group, identity, 'owner')
    // #endregion
  })

  return { app, workspace }
}
