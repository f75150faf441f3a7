import { freePort } from '../../test/helpers/ports.ts'
import { LoadGenerator, type Members } from './load-generator.ts'
import { Native } from './native.ts'
import type { Plan, Sent } from './publisher.ts'
import type { Rig } from './rig.ts'

/** The loop of write() in native/floor.c in the place of a system: one process, which makes its messages itself; no Redis. */
export class FloorRig implements Rig {
  readonly load = new LoadGenerator()
  readonly redis = undefined
  readonly redisPid = undefined
  readonly publisherPid = undefined
  readonly #native: Native
  readonly #port: number

  private constructor (native: Native, port: number) {
    this.#native = native
    this.#port = port
  }

  static async start (): Promise<FloorRig> {
    const native = new Native('floor')
    const port = await freePort()
    await native.ask(`listen ${port}`)
    return new FloorRig(native, port)
  }

  get pids (): number[] { return [this.#native.pid] }

  async open (members: Members): Promise<number> {
    if (members.groups !== 1) throw new Error('the floor knows one group')
    return await this.load.open({ protocol: 'ws', path: '/%u' }, [this.#port], members)
  }

  async publish ({ perSecond, bytes, binary }: Plan): Promise<void> {
    await this.#native.ask(`publish ${perSecond} ${bytes} ${binary ? 1 : 0}`)
  }

  async sent (): Promise<number> {
    return (await this.#native.ask<{ sent: number }>('sent')).sent
  }

  async stop (): Promise<Sent> {
    const { sent } = await this.#native.ask<{ sent: number }>('stop')
    return { groups: [sent], total: sent, refused: 0, firstRefusal: undefined }
  }

  async lags (): Promise<[]> { return [] }
  async connections (): Promise<number> { return 0 }
  async fromRedis (): Promise<[]> { return [] }
  async heapBytes (): Promise<[]> { return [] }

  async close (): Promise<void> {
    await this.load.end()
    await this.#native.end()
  }
}
