// `npm run redis`: a private redis-server in the foreground, for trying the example with several processes. It keeps
// nothing on disk and listens on this machine only. Another port: npm run redis -- --port 6380
import { spawn } from 'node:child_process'
import { redisBinary } from './redis-binary.mjs'

try {
  const server = spawn(
    redisBinary(), ['--bind', '127.0.0.1', '--port', '6379', '--save', '', '--appendonly', 'no', ...process.argv.slice(2)],
    { stdio: 'inherit' }
  )
  // Ctrl-C reaches the server by itself; this process only has to outlive it.
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => server.kill('SIGTERM'))
  server.on('error', err => {
    console.error(err.message)
    process.exitCode = 1
  })
  server.on('close', code => { process.exitCode = code ?? 1 })
} catch (err) {
  console.error(err.message)
  process.exitCode = 1
}
