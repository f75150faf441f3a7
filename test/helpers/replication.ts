import type { Redis } from 'ioredis'
import { until } from './until.ts'

interface Server { readonly admin: Redis }

/** The master takes no more writes for that long; resolves once the replica has all that were made. */
export async function stopWrites (master: Server, replica: Server, forMs: number): Promise<void> {
  await master.admin.call('CLIENT', 'PAUSE', forMs, 'WRITE')
  await until(async () => await offsetOf(master) === await offsetOf(replica), { everyMs: 10, what: 'the replica to have all writes' })
}

/** How far the server is in the stream of writes. */
async function offsetOf ({ admin }: Server): Promise<string | undefined> {
  return /^(?:master_repl|slave_repl)_offset:(\d+)/m.exec(await admin.info('replication'))?.[1]
}
