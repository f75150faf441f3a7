import { createAdapter } from '@socket.io/redis-adapter'
import { createClient } from 'redis'
import { connect, path, protocol, publisher, serve } from './socketio-common.ts'
import type { DrillSystem } from './system.ts'

async function clients (url: string) {
  const [publisher, subscriber] = [createClient({ url }), createClient({ url })] as const
  await Promise.all([publisher.connect(), subscriber.connect()])
  return [publisher, subscriber] as const
}

/** As its docs set it up for several instances. */
export const system: DrillSystem = {
  name: 'socket.io, Redis adapter',
  protocol,
  path,

  async serve (port, url, options) {
    const [publisher, subscriber] = await clients(url)
    return await serve(port, { adapter: createAdapter(publisher, subscriber) }, () => [publisher.destroy(), subscriber.destroy()], options)
  },

  publisher: async url => publisher({ adapter: createAdapter(...await clients(url)) }),
  connect: (options, events) => connect(options, events, false)
}
