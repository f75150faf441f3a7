import { createServer } from 'node:net'

/** Test files run beside each other: each process draws from a part of its own, and so not what a server of another one will need again. */
const parts = 200
const perPart = 100
const first = 10_000 + (process.pid % parts) * perPart
/** Handed out lately: whoever asked for several may not listen on the first yet. */
const given = new Set<number>()

/**
 * A free port below the range that systems hand out by themselves (from 32768 on Linux): a server that is killed and
 * started again on its port would otherwise find it taken by somebody's outgoing connection.
 */
export async function freePort (): Promise<number> {
  // Tests of many rounds use up all of them; the servers of the first rounds are gone by then.
  if (given.size > 0.8 * perPart) given.clear()
  for (let attempt = 0; attempt < 200; attempt++) {
    const port = first + Math.floor(Math.random() * perPart)
    if (given.has(port)) continue
    given.add(port)
    if (await isFree(port)) return port
  }
  throw new Error(`found no free port between ${first} and ${first + perPart}`)
}

function isFree (port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
