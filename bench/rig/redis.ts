import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { createClient } from 'redis'
import { redisBinary } from '../../scripts/redis-binary.mjs'
import { freePort } from '../../test/helpers/ports.ts'
import { endWithThis } from './child.ts'

export interface BenchRedis {
  readonly pid: number
  readonly url: string
  version (): Promise<string>
  /** How often a command ran, also from scripts. */
  calls (command: string): Promise<number>
  /** Microseconds by the wall clock that Redis spent in scripts. */
  scriptUs (): Promise<number>
  /** How many commands of clients ran, but for those that the bench itself asks. */
  commands (): Promise<number>
  memoryBytes (): Promise<number>
  close (): Promise<void>
}

/** A redis-server of this run's own, which keeps nothing. `options` are those of its command line. */
export async function startRedis (...options: readonly string[]): Promise<BenchRedis> {
  const port = await freePort()
  const server = spawn(
    redisBinary(), ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', ...options], { stdio: 'ignore' }
  )
  endWithThis(server)
  const url = `redis://127.0.0.1:${port}`
  const client = createClient({ url })
  client.on('error', () => {}) // until it listens
  for (let i = 0; i < 100 && !client.isReady; i++) {
    void client.connect().catch(() => {})
    await sleep(50)
  }
  let asked = 0
  const ask = async (section: string): Promise<string> => {
    asked++
    return await client.info(section)
  }
  return {
    pid: server.pid ?? 0,
    url,
    version: async () => /redis_version:(\S+)/.exec(await ask('server'))?.[1] ?? 'unknown',
    calls: async command => Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(await ask('commandstats'))?.[1] ?? 0),
    scriptUs: async () => [...(await ask('commandstats')).matchAll(/^cmdstat_eval(?:sha)?:calls=\d+,usec=(\d+)/gm)]
      .reduce((sum, [, us]) => sum + Number(us), 0),
    // Counts what is done: the INFO that asks is not among them yet.
    commands: async () => Number(/total_commands_processed:(\d+)/.exec(await ask('stats'))?.[1]) - asked + 1,
    memoryBytes: async () => Number(/^used_memory:(\d+)/m.exec(await ask('memory'))?.[1]),
    async close () {
      client.destroy()
      server.kill()
      await once(server, 'exit')
    }
  }
}
