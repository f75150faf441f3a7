// Whatever a function of the service does for one client: others are served, no text gets out, nothing is unhandled, the end is in time.
import t from 'tap'
import type { Connection, RoomOptions, WebsocketGroupsOptions } from '../../plugin.ts'
import { connect } from '../helpers/client.ts'
import { watchMachine } from '../helpers/machine.ts'
import { serve } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

const secret = 'password=hunter2'
const failure = (): Error => new Error(secret)
const fail = (thrown: unknown): never => { throw thrown }
const graceMs = 300
const machine = watchMachine(t)

/** What the functions do, by the name of the user that they do it for. */
const acts: Readonly<Record<string, () => unknown>> = {
  error () { throw failure() },
  text () { fail(secret) },
  nothing () { fail(undefined) },
  frozen () { throw Object.freeze(failure()) },
  unreadable () { throw Object.defineProperty(failure(), 'code', { get () { throw failure() }, enumerable: true }) },
  wrongStatus () { throw Object.assign(failure(), { statusCode: 200 }) },
  wrongClose () { throw Object.assign(failure(), { closeCode: 1005, closeReason: {} }) },
  rejects: async () => await Promise.reject(Object.freeze(failure())),
  hangs: async () => await new Promise(() => {}),
  failsTwice: () => ({ then (_: unknown, reject: (error: Error) => void) { reject(failure()); throw failure() } }),
  symbol: () => Symbol(secret)
}

/** What a client of the framed protocol asks for. */
const requests = [
  { type: 'hello' }, { type: 'message', data: 'x', id: 1 }, { type: 'join', group: 'more', id: 2 },
  { type: 'history', group: 'more', id: 3 },
  { type: 'token', token: 'other', id: 4 }, { type: 'leave', group: 'more', id: 5 }
]

for (const place of ['onJoin', 'onMessage', 'onLeave', 'onError', 'mayJoin', 'mayRead', 'onOccupied', 'onUserOffline', 'memberInfo']) {
  t.test(place, async t => {
    const careless = (who: unknown, otherwise: unknown = true): unknown => {
      const name = String(typeof who === 'object' && who !== null && 'userId' in who ? who.userId : who)
      return Object.hasOwn(acts, name) ? acts[name]?.() : otherwise
    }
    const room: RoomOptions = { group: ({ room = '' }) => room, mayJoin: () => true, [place]: careless }
    const ofPlugin = ['onOccupied', 'onUserOffline', 'memberInfo'].includes(place)
    const option = ofPlugin ? { [place]: (who: unknown) => careless(who, undefined) } : {}
    const options: WebsocketGroupsOptions = { closeGraceMs: graceMs, ...option }
    const { app, url } = await serve(t, options, app => {
      const onMessage = (connection: Connection, data: string | Buffer, group: string): unknown => {
        if (place === 'onError' && Object.hasOwn(acts, group)) throw failure()
        const answer = place === 'onMessage' ? careless(connection) : true
        return answer === true ? app.registry.broadcastToGroup(group, data) : answer
      }
      app.wsRoom('/:room', ofPlugin ? { group: room.group, mayJoin: () => true } : { ...room, onMessage })
    })
    const bystander = connect(t, `${url}/quiet`, { protocols: ['bearer', 'bystander'] })
    await until(async () => await app.registry.groupCount('quiet') === 1)

    const clients = Object.keys(acts).flatMap(name => [['wsg.v1', 'bearer', name], ['bearer', name]].map(protocols => {
      const client = connect(t, `${url}/${name}`, { protocols })
      const frames = protocols[0] === 'wsg.v1' ? requests.map(request => JSON.stringify(request)) : ['x', 'y']
      client.ws.once('open', () => {
        for (const frame of frames) client.send(frame)
        if (protocols[0] !== 'wsg.v1') client.ws.close()
      })
      return client
    }))
    await Promise.all(clients.map(async ({ opened }) => await opened))
    bystander.send('served')
    t.equal(await bystander.next(), 'served')
    t.equal(bystander.ws.readyState, bystander.ws.OPEN)

    machine.restart()
    const startedAt = performance.now()
    await app.close()
    machine.within(t, performance.now() - startedAt, graceMs + 2_000, 'the close')
    for (const { messages } of clients) t.notMatch(messages.join(), /hunter2/)
  })
}
