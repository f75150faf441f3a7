import { createAdapter } from '@socket.io/redis-streams-adapter'
import { createClient } from 'redis'
import { connect, serve } from './socketio-common.ts'
import type { System } from './system.ts'

/** With state recovery, which the adapter for Redis streams alone supports across instances. */
export const system: System = {
  name: 'socket.io, streams adapter, state recovery',

  async serve (port, url) {
    const client = createClient({ url })
    await client.connect()
    return await serve(port, { adapter: createAdapter(client), connectionStateRecovery: {} }, async () => {
      await client.ping() // what it stores of the sessions at the end is through
      client.destroy()
    })
  },

  connect: (options, events) => connect(options, events, true)
}
