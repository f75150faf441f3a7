import { createShardedAdapter } from '@socket.io/redis-adapter'
import { createClient } from 'redis'
import { path, protocol, publisher, serve } from './socketio-common.ts'
import type { System } from './system.ts'

async function clients (url: string) {
  const [publisher, subscriber] = [createClient({ url }), createClient({ url })] as const
  await Promise.all([publisher.connect(), subscriber.connect()])
  return [publisher, subscriber] as const
}

/** Its docs' other adapter, which subscribes to rooms one by one. */
export const system: System = {
  name: 'socket.io, sharded Redis adapter',
  protocol,
  path,

  async serve (port, url, options) {
    const [publisher, subscriber] = await clients(url)
    return await serve(
      port, { adapter: createShardedAdapter(publisher, subscriber) }, () => [publisher.destroy(), subscriber.destroy()], options
    )
  },

  publisher: async url => publisher({ adapter: createShardedAdapter(...await clients(url)) })
}
