// A process with no sockets: publishes, and must end by itself once its publisher is closed. Arguments: URL of Redis, group, number of
// messages.
import { createPublisher } from '../../../plugin.ts'

const [url = '', group = '', count = '0'] = process.argv.slice(2)
const publisher = createPublisher({ redis: url })
const results = await Promise.all(Array.from({ length: Number(count) }, async (_, n) => await publisher.broadcastToGroup(group, String(n))))
const { length: members } = await publisher.members(group)
await publisher.close()
process.send?.({ results, members })
process.disconnect?.()
