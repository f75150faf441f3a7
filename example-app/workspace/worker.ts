import { createPublisher } from 'fastify-websocket-groups'
import { Jobs } from './jobs.ts'
import { redisUrl } from './settings.ts'

// A process without sockets: it does what would hold an instance up, and tells the user on all devices, whichever instances hold them.
const publisher = createPublisher({ redis: redisUrl })
const jobs = new Jobs(redisUrl)
process.on('disconnect', () => process.exit())

// #region Notifications from a worker
await jobs.work(async ({ userId, room }) => {
  const { messages } = await publisher.history(room, { limit: 10_000 })
  const text = `The report on #${room} is ready: ${messages.length} messages and receipts.`
  await publisher.broadcastJson({ userId }, { type: 'notified', data: { text } })
})
// #endregion
