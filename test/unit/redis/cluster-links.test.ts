import t, { type Test } from 'tap'
import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { ClusterLinks } from '../../../lib/backplane/redis/link/cluster/cluster.ts'
import { clusterSource, type ClusterSource } from '../../../lib/backplane/redis/link/cluster/source.ts'
import { until } from '../../helpers/until.ts'

/** A server that accepts connections and says nothing. */
async function startSilent (t: Test): Promise<{ readonly port: number, readonly sockets: readonly Socket[] }> {
  const sockets: Socket[] = []
  const server = createServer(socket => { sockets.push(socket.on('error', () => {}).resume()) }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { port: (server.address() as AddressInfo).port, sockets }
}

t.test('links that are closed during a look-up ask no further node, and open nothing', async t => {
  const [first, second] = [await startSilent(t), await startSilent(t)]
  const source = clusterSource({ cluster: [first, second].map(({ port }) => ({ host: '127.0.0.1', port })) }) as ClusterSource
  const options = { keyPrefix: 'wsg:', tags: ['0'], commonTag: '0', deadlineMs: 500 }
  const links = new ClusterLinks(source, options, { changed () {}, error () {} })
  await until(() => first.sockets.length === 1)
  await links.close()
  const from = { address: { host: '127.0.0.1', port: first.port } }
  t.equal(links.linkTo(`127.0.0.1:${second.port}`, from), undefined, 'not for a call that a master sends there by ASK, either')
  await until(() => first.sockets[0]?.closed === true)
  // The next node would have been asked at once.
  await sleep(200)
  t.equal(second.sockets.length, 0)
})

t.test('a master that names another one without a host means its own host', async t => {
  const node = await startSilent(t)
  const source = clusterSource({ cluster: [{ host: '127.0.0.1', port: node.port }] }) as ClusterSource
  const options = { keyPrefix: 'wsg:', tags: ['0'], commonTag: '0', deadlineMs: 500 }
  const links = new ClusterLinks(source, options, { changed () {}, error () {} })
  const from = { address: { host: '127.0.0.1', port: 7_000 } }
  const named = links.linkTo(`127.0.0.1:${node.port}`, from)
  t.ok(named)
  for (const host of ['', '?']) t.equal(links.linkTo(`${host}:${node.port}`, from), named)
  t.equal(links.linkTo(`:${node.port}`, { address: undefined }), undefined, 'where that is not known')
  await links.close()
})
