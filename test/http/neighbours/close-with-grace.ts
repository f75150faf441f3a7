import closeWithGrace from 'close-with-grace'
import Fastify from 'fastify'
import websocketGroups from '../../../plugin.ts'

const app = Fastify()
closeWithGrace({ delay: 5_000 }, async () => await app.close())
await app.register(websocketGroups, {})
app.wsRoom('/ws/:room', {
  auth: false,
  group: ({ room }) => room,
  onJoin (connection) { connection.send('joined') },
  onLeave () { console.log('left') }
})
console.log(await app.listen({ port: 0, host: '127.0.0.1' }))
