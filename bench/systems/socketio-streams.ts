import { createAdapter } from '@socket.io/redis-streams-adapter'
import { createClient } from 'redis'
import { connect, path, protocol, publisher, serve } from './socketio-common.ts'
import type { DrillSystem } from './system.ts'

/** With state recovery, which the adapter for Redis streams alone supports across instances. */
export const system: DrillSystem = {
  name: 'socket.io, streams adapter, state recovery',
  protocol,
  path,

  async serve (port, url, options) {
    const client = createClient({ url })
    await client.connect()
    return await serve(port, { adapter: createAdapter(client), connectionStateRecovery: {} }, async () => {
      await client.ping() // what it stores of the sessions at the end is through
      client.destroy()
    }, options)
  },

  async publisher (url) {
    const client = createClient({ url })
    await client.connect()
    return publisher({ adapter: createAdapter(client), connectionStateRecovery: {} })
  },

  connect: (options, events) => connect(options, events, true)
}
