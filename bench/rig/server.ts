// One instance of a system whose costs are measured, as a process: server.ts <system> <port> <redis URL> <text | binary>
import { subscribe } from 'node:diagnostics_channel'
import type { Socket } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { expose } from './child.ts'
import { load, type SystemName } from '../systems/system.ts'
import { LagMeter } from './lag.ts'

const [, , name = 'ours', port = '0', redisUrl = '', kind = 'text'] = process.argv

const { Bun: bun } = globalThis as { Bun?: { gc (synchronous: boolean): void } }
const outgoing: Socket[] = []
subscribe('net.client.socket', message => outgoing.push((message as { socket: Socket }).socket))
const lag = new LagMeter()
const system = await load(name as SystemName)
const instance = await system.serve(Number(port), redisUrl, { announce: true, binary: kind === 'binary' })

const api = {
  lag: () => lag.read(),
  connections: () => instance.stats().connections ?? 0,
  /** Collects garbage and closes the gaps that it leaves, so that what is measured is what is needed. */
  heapBytes (): number {
    if (bun === undefined) {
      setFlagsFromString('--compact-on-every-full-gc')
      globalThis.gc?.()
      setFlagsFromString('--no-compact-on-every-full-gc')
    } else {
      bun.gc(true)
    }
    return process.memoryUsage().heapUsed
  },
  /** Bytes that came from Redis; Bun does not tell. */
  fromRedis (): number {
    const { port } = new URL(redisUrl)
    return bun === undefined ? outgoing.reduce((sum, socket) => socket.remotePort === Number(port) ? sum + socket.bytesRead : sum, 0) : -1
  }
}
export type ServerApi = typeof api
expose(api)
