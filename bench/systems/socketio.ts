import { createAdapter } from '@socket.io/redis-adapter'
import { createClient } from 'redis'
import { connect, serve } from './socketio-common.ts'
import type { System } from './system.ts'

/** As its docs set it up for several instances. */
export const system: System = {
  name: 'socket.io, Redis adapter',

  async serve (port, url) {
    const [publisher, subscriber] = [createClient({ url }), createClient({ url })]
    await Promise.all([publisher.connect(), subscriber.connect()])
    return await serve(port, { adapter: createAdapter(publisher, subscriber) }, () => [publisher.destroy(), subscriber.destroy()])
  },

  connect: (options, events) => connect(options, events, false)
}
