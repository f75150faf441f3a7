import { createServer } from 'node:net'

/**
 * A free port below the range that systems hand out by themselves (from 32768 on Linux): a server that is killed and
 * started again on its port would otherwise find it taken by somebody's outgoing connection.
 */
export async function freePort (): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const port = 10_000 + Math.floor(Math.random() * 20_000)
    if (await isFree(port)) return port
  }
  throw new Error('found no free port between 10000 and 30000')
}

function isFree (port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
