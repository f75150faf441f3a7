// A Redis Cluster on this machine: three masters, each with a replica. It ends with this process and leaves nothing behind.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'

const firstPort = 7000
const masters = 3
const slots = 16384

/** Starts the cluster, says where it is, and resolves when all its slots are served. */
export async function startCluster (binary, more) {
  const folder = mkdtempSync(join(tmpdir(), 'redis-cluster-'))
  const ports = Array.from({ length: 2 * masters }, (_, n) => firstPort + n)
  const servers = ports.map(port => spawn(binary, [
    '--bind', '127.0.0.1', '--port', String(port), '--cluster-port', String(port + 1000), '--save', '', '--appendonly', 'no',
    '--loglevel', 'warning', '--dir', folder, '--dbfilename', `${port}.rdb`, '--cluster-enabled', 'yes',
    '--cluster-config-file', `${port}.conf`, '--cluster-node-timeout', '2000', '--cluster-require-full-coverage', 'no',
    '--repl-diskless-sync-delay', '0', ...more
  ], { stdio: ['ignore', 'ignore', 'inherit'] }))
  let running = servers.length
  let ending = false
  const end = () => {
    ending = true
    for (const server of servers) server.kill()
  }
  process.on('SIGINT', end)
  process.on('SIGTERM', end)
  for (const [index, server] of servers.entries()) {
    server.on('error', err => console.error(err.message))
    server.on('close', code => {
      // A server that is killed to see what happens does not end the others.
      if (!ending) console.error(`the server on port ${ports[index]} ended (${code ?? server.signalCode})`)
      if (--running > 0) return
      rmSync(folder, { recursive: true, force: true })
      if (!ending) process.exitCode = 1
    })
  }
  const clients = ports.map(port => new Redis(port, '127.0.0.1', { retryStrategy: () => 50, maxRetriesPerRequest: null }))
  for (const client of clients) client.on('error', () => {}) // the servers do not listen yet
  try {
    await form(clients, ports)
  } catch (err) {
    end()
    throw err
  } finally {
    for (const client of clients) client.disconnect()
  }
  console.log(`Redis Cluster: masters and replicas on 127.0.0.1, ports ${ports.join(', ')}. Kill one to see what happens; Ctrl-C ends all.`)
  console.log(`Processes of servers by port: ${servers.map(({ pid }, index) => `${ports[index]}: ${pid}`).join(', ')}`)
}

async function form (clients, ports) {
  const ids = await Promise.all(clients.map(async client => await client.cluster('MYID')))
  for (const [index, client] of clients.entries()) {
    await client.cluster('SET-CONFIG-EPOCH', index + 1)
    if (index >= masters) continue
    const [from, to] = [index, index + 1].map(n => Math.round(n * slots / masters))
    await client.call('CLUSTER', 'ADDSLOTSRANGE', from, to - 1)
  }
  for (const port of ports.slice(1)) await clients[0].call('CLUSTER', 'MEET', '127.0.0.1', port, port + 1000)
  await until(async client => ids.every(id => client.includes(id)) && !client.includes('handshake'), clients, 'NODES')
  for (const [index, client] of clients.entries()) if (index >= masters) await client.cluster('REPLICATE', ids[index - masters])
  await until(async info => info.includes('cluster_state:ok'), clients, 'INFO')
}

async function until (isDone, clients, what) {
  for (let n = 0; n < 600; n++) {
    const answers = await Promise.all(clients.map(async client => await client.cluster(what)))
    if ((await Promise.all(answers.map(isDone))).every(Boolean)) return
    await sleep(50)
  }
  throw new Error('the servers did not become a cluster within 30 seconds')
}
