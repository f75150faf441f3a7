// `npm run redis`: a private redis-server in the foreground, for trying the example with several processes. It stores
// nothing on disk and listens on this machine only. Another port: npm run redis -- --port 6380
// `npm run redis -- --cluster`: a Redis Cluster of three masters, each with a replica, on the ports 7000 to 7005.
import { spawn } from 'node:child_process'
import { redisBinary } from './redis-binary.mjs'
import { startCluster } from './redis-cluster.mjs'

const args = process.argv.slice(2)

try {
  if (args.includes('--cluster')) await startCluster(redisBinary(), args.filter(arg => arg !== '--cluster'))
  else startServer(redisBinary(), args)
} catch (err) {
  console.error(err.message)
  process.exitCode = 1
}

function startServer (binary, more) {
  const server = spawn(binary, ['--bind', '127.0.0.1', '--port', '6379', '--save', '', '--appendonly', 'no', ...more], { stdio: 'inherit' })
  // Ctrl-C reaches the server by itself; this process only has to outlive it.
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => server.kill('SIGTERM'))
  server.on('error', err => {
    console.error(err.message)
    process.exitCode = 1
  })
  server.on('close', code => { process.exitCode = code ?? 1 })
}
