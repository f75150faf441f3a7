import type { Test } from 'tap'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { forkProgram } from '../../helpers/child.ts'
import { Wire } from '../chaos/wire.ts'
import { startClusterStore } from './cluster-store.ts'
import { store } from './groups.ts'
import type { Answer, Order, View } from './instance.ts'
import { startSentinelStore } from './sentinel-store.ts'
import { startSingleStore } from './single-store.ts'
import type { Store } from './store.ts'

const startStore = { single: startSingleStore, sentinel: startSentinelStore, cluster: startClusterStore } as const
const program = fileURLToPath(new URL('instance.ts', import.meta.url))

export interface Instance {
  /** To each server of the store. */
  readonly wires: readonly Wire[]
  process: ChildProcess
  /** 0 while it is not there. */
  port: number
}

/** What keeps the data, and instances in processes of their own, each behind wires of its own. */
export class Stack {
  readonly instances: Instance[] = []
  /** What instances had unhandled, or how they ended by themselves. */
  readonly faults: string[] = []
  store!: Store
  readonly #t: Test

  constructor (t: Test) {
    this.#t = t
  }

  async start (count: number): Promise<void> {
    this.store = await startStore[store](this.#t)
    for (let n = 0; n < count; n++) {
      const wires = await Promise.all(this.store.ports.map(async port => await Wire.start(port)))
      this.#t.teardown(() => { for (const wire of wires) wire.close() })
      this.instances.push({ wires, process: undefined as unknown as ChildProcess, port: 0 })
    }
    this.#t.teardown(() => { for (const { process } of this.instances) process?.kill('SIGKILL') })
    await Promise.all(this.instances.map(async instance => await this.spawn(instance)))
  }

  /** Ports of the instances that take connections. */
  get ports (): number[] {
    return this.instances.map(({ port }) => port).filter(port => port > 0)
  }

  async spawn (instance: Instance): Promise<void> {
    const child = forkProgram(program, [JSON.stringify(this.store.optionFor(instance.wires))])
    instance.process = child
    child.on('exit', (code, signal) => {
      // Or the channel of one that was killed stays, and this process with it.
      if (child.connected) child.disconnect()
      if (code !== 0 && signal !== 'SIGKILL') this.faults.push(`an instance ended by itself: ${code ?? signal}`)
    })
    const [{ port = 0 }] = await once(child, 'message') as [Answer]
    instance.port = port
  }

  async kill (instance: Instance): Promise<void> {
    instance.port = 0
    const gone = once(instance.process, 'exit')
    instance.process.kill('SIGKILL')
    await gone
  }

  /** Closes the application. */
  async stop (instance: Instance): Promise<void> {
    instance.port = 0
    const gone = once(instance.process, 'exit')
    const { unhandled = [] } = await this.#ask(instance, { stop: true })
    this.faults.push(...unhandled)
    await gone
  }

  async view (instance: Instance, groups: readonly string[]): Promise<View> {
    return (await this.#ask(instance, { view: groups })).view ?? []
  }

  async #ask ({ process }: Instance, order: Order): Promise<Answer> {
    const answered = once(process, 'message') as Promise<[Answer]>
    process.send(order)
    return (await answered)[0]
  }
}
