// One instance of a system, as a process: instance.ts <system> <port> <redis URL>
import { setTimeout as sleep } from 'node:timers/promises'
import { expose } from './child.ts'
import { loadForDrill, type DrillName } from '../systems/system.ts'
import { usage } from './usage.ts'

const [, , name = 'ours', port = '0', redisUrl = ''] = process.argv
const system = await loadForDrill(name as DrillName)
const instance = await system.serve(Number(port), redisUrl)
const filler = 'x'.repeat(96)
const sent: Record<string, number> = {}
let publishing: Promise<unknown> | undefined
const stopping = new AbortController()

async function series (group: string, everyMs: number): Promise<void> {
  await sleep(Math.random() * everyMs)
  const start = performance.now()
  for (let n = 1; !stopping.signal.aborted; n++) {
    await instance.publish(group, `${n} ${Date.now()} ${filler}`)
    sent[group] = n
    await sleep(Math.max(0, start + n * everyMs - performance.now()))
  }
}

const api = {
  usage,
  stats: () => instance.stats(),
  drain: async (overMs: number): Promise<void> => await instance.drain?.(overMs),
  /** Numbers the messages of each group from 1, until told to stop. */
  publish (groups: readonly string[], everyMs: number): void {
    publishing = Promise.all(groups.map(async group => await series(group, everyMs)))
  },
  /** How many messages were sent to each group. */
  async stop (): Promise<Record<string, number>> {
    stopping.abort()
    await publishing
    return sent
  }
}
export type InstanceApi = typeof api

process.once('SIGTERM', async () => {
  await instance.close()
  process.exit()
})
expose(api)
