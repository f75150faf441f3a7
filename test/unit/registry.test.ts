import t, { type Test } from 'tap'
import { memoryCluster, WebsocketGroupsError, type Backplane, type LocalInstance, type WebsocketGroupsOptions } from '../../plugin.ts'
import { FakeBackplane } from '../helpers/fakes.ts'
import { service, type Service } from '../helpers/service.ts'

/** An application that is not ready yet. */
async function make (t: Test, options: WebsocketGroupsOptions): Promise<Service> {
  return await service(t, options, { level: 'debug' })
}

t.test('an instance whose id is taken does not start', async (t) => {
  let offered: string[] = []
  const backplane: Backplane = Object.assign(new FakeBackplane(), {
    start: async ({ instanceId }: LocalInstance) => {
      offered = [...offered, instanceId]
      throw new WebsocketGroupsError('WSG_INSTANCE_ID_TAKEN')
    }
  })
  const { app } = await make(t, { backplane })
  await t.rejects(Promise.resolve(app.ready()), { code: 'WSG_INSTANCE_ID_TAKEN' })
  t.strictSame(offered, [app.registry.instanceId])
})

t.test('any other error at the start of the backplane is the error of the boot, whatever the policy', async (t) => {
  const backplane: Backplane = Object.assign(new FakeBackplane(), { start: async () => { throw new TypeError('a bug') } })
  const { app } = await make(t, { backplane, outage: { boot: 'degraded' } })
  await t.rejects(Promise.resolve(app.ready()), TypeError)
})

t.test('every line says which instance wrote it, and a delivery how many connections of it got the message', async (t) => {
  const cluster = memoryCluster()
  const { app, logs } = await make(t, { backplane: cluster.backplane(), instanceLabel: 'inst1' })
  await app.ready()
  const { registry } = app
  await registry.broadcastToGroup('lobby', 'nobody')
  await registry.broadcastToAll('x')
  // In memory as elsewhere a message comes back a moment after it was sent.
  await new Promise(resolve => setImmediate(resolve))
  t.match(logs.find(({ msg }) => msg === 'websocket groups ready'), {
    level: 30, instanceId: registry.instanceId, instanceLabel: 'inst1', backplane: 'memory'
  })
  t.match(
    logs.filter(({ msg }) => msg === 'message delivered'),
    [{ level: 20, instanceId: registry.instanceId, instanceLabel: 'inst1', all: '', recipients: 0 }]
  )
})

t.test('a volatile message that is delivered without the backplane is logged as any other', async (t) => {
  const backplane = new FakeBackplane()
  backplane.onPublish = async () => { throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE') }
  const { app, logs } = await make(t, { backplane })
  await app.ready()
  const result = await app.registry.broadcastToGroup(['lobby', 'den'], 'x', { volatile: true })
  t.strictSame(result, { scope: 'local', localRecipients: 0 })
  t.match(logs.filter(({ msg }) => msg === 'message delivered'), [{ group: 'lobby', recipients: 0 }, { group: 'den', recipients: 0 }])
})

t.test('stats are numbers, with those of the backplane among them', async (t) => {
  const backplane = Object.assign(new FakeBackplane(), { stats: () => ({ ofTheBackplane: 7, constructor: 8 }) })
  const { app } = await make(t, { backplane })
  await app.ready()
  const stats = app.registry.stats()
  for (const [name, value] of Object.entries(stats)) t.type(value, 'number', name)
  t.match(stats, { connections: 0, groups: 0, messagesPublished: 0, ofTheBackplane: 7 })
  t.strictSame(app.registry.metrics().other_stat?.values, [
    { labels: { stat: 'ofTheBackplane' }, value: 7 }, { labels: { stat: 'constructor' }, value: 8 }
  ])
})

t.test('app.registry has the public methods and nothing else', async (t) => {
  const { app } = await make(t, {})
  await app.ready()
  const registry: object = app.registry
  t.strictSame(Reflect.ownKeys(registry), [])
  const names = new Set<string>()
  for (let type: object = Object.getPrototypeOf(registry); type !== Object.prototype; type = Object.getPrototypeOf(type)) {
    for (const name of Reflect.ownKeys(type)) names.add(String(name))
  }
  t.strictSame([...names].sort(), [
    'all', 'block', 'broadcastJson', 'broadcastToAll', 'broadcastToGroup', 'connectionCount', 'constructor', 'count', 'describe',
    'disconnect', 'drain', 'filter', 'get', 'groupCount', 'groupList', 'groups', 'health', 'history', 'instanceId', 'instances', 'join',
    'leave', 'leaveAll', 'members', 'metrics', 'presence', 'readStream', 'sendTo', 'sendToUser', 'stats',
    'stopStream', 'stream', 'unblock', 'userCount'
  ])
  for (const name of ['close', 'open', 'renew', 'start', 'ready']) t.notOk(name in registry, name)
})
