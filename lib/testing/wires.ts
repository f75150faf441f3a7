import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { newBus } from '../backplane/memory/index.ts'
import { WebsocketGroupsError } from '../errors.ts'
import type { WebsocketGroupsOptions } from '../options/types.ts'
import { Forwarder } from './forwarder.ts'
import { SwitchedMemory } from './switched-memory.ts'

// Taken before the test starts, which may replace the timers.
const { setTimeout: startTimer } = globalThis
const pauseMs = 5
const findMs = 1_000
const noticeMs = 1_000

/** The connection of one instance to the others. */
export interface Wire {
  readonly options: Pick<WebsocketGroupsOptions, 'backplane' | 'redis' | 'keyPrefix'>
  /** Cuts the instance off for good. */
  cut (): void
  close (): Promise<void>
}

export interface Wires {
  add (): Promise<Wire>
  setOut (out: boolean): Promise<void>
  /** Called when an instance was killed. */
  died (): void
  pause (): Promise<void>
}

async function pause (): Promise<void> {
  await new Promise<void>(resolve => startTimer(resolve, pauseMs))
}

export function memoryWires (): Wires {
  const bus = newBus()
  const all = new Set<SwitchedMemory>()
  let out = false
  return {
    async add () {
      const backplane = new SwitchedMemory(bus)
      await backplane.setOut(out)
      all.add(backplane)
      return {
        options: { backplane },
        // The others see the end at once: in memory there is no lease that has to end.
        cut: () => { void backplane.close() },
        close: async () => { all.delete(backplane) }
      }
    },
    async setOut (now) {
      out = now
      for (const backplane of all) await backplane.setOut(now)
    },
    died: () => { for (const backplane of all) backplane.instanceDied() },
    pause
  }
}

/** @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE */
export async function redisWires (redis: string): Promise<Wires> {
  const server = new URL(redis === 'find' ? process.env.REDIS_URL ?? 'redis://127.0.0.1:6379' : redis)
  // The brackets of an IPv6 address belong to the URL, not to the address.
  const [host, port] = [server.hostname.replace(/^\[|\]$/g, ''), Number(server.port || 6379)]
  await assertReachable(host, port)
  const keyPrefix = `wsg-test-${randomBytes(6).toString('hex')}:`
  const forwarders = new Set<Forwarder>()
  let isOut = false
  return {
    async add () {
      const forwarder = await Forwarder.to(host, port)
      if (isOut) forwarder.cut()
      forwarders.add(forwarder)
      const url = new URL(server)
      url.hostname = '127.0.0.1'
      url.port = String(forwarder.port)
      return {
        options: { redis: url.href, keyPrefix },
        cut: () => forwarder.cut(),
        async close () {
          forwarders.delete(forwarder)
          await forwarder.close()
        }
      }
    },
    async setOut (out) {
      isOut = out
      for (const forwarder of forwarders) {
        if (out) forwarder.cut()
        else forwarder.mend()
      }
      // An instance sends over a connection until it has noticed that it ended: of such a call nobody knows whether it was carried out.
      const lastLookAt = performance.now() + noticeMs
      const isNoticed = (): boolean => !out || [...forwarders].every(({ connections }) => connections === 0)
      do await pause()
      while (!isNoticed() && performance.now() < lastLookAt)
    },
    died: () => {},
    pause
  }
}

async function assertReachable (host: string, port: number): Promise<void> {
  const socket = connect({ host, port, timeout: findMs })
  socket.on('timeout', () => socket.destroy(new Error(`no answer within ${findMs} ms`)))
  try {
    await once(socket, 'connect')
  } catch (cause) {
    throw new WebsocketGroupsError(
      'WSG_BACKPLANE_UNAVAILABLE', `no Redis at ${host}:${port}: start one, set REDIS_URL, or leave out redis to test in memory`, { cause }
    )
  } finally {
    socket.destroy()
  }
}
