import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import { redisBinary } from '../../scripts/redis-binary.mjs'

/** Starts a Redis that stores nothing on disk, on a free port. Resolves when it takes connections. */
export async function startRedis (): Promise<{ readonly url: string, close (): void }> {
  const port = await freePort()
  const server = spawn(redisBinary(), ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    // Out of the terminal's process group, or Ctrl-C would end Redis before the instances.
    detached: true
  })
  // However this process ends, Redis must not outlive it.
  process.once('exit', () => { server.kill() })
  for await (const line of createInterface({ input: server.stdout })) if (line.includes('Ready to accept')) break
  server.stdout.resume()
  return { url: `redis://127.0.0.1:${port}`, close () { server.kill() } }
}

async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
