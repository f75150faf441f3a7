import type { Test } from 'tap'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { forkProgram } from '../../helpers/child.ts'
import { startRedis, type TestRedis } from '../../helpers/redis.ts'
import { Wire } from '../chaos/wire.ts'
import type { Answer, Order, View } from './instance.ts'

const program = fileURLToPath(new URL('instance.ts', import.meta.url))

export interface Instance {
  readonly wire: Wire
  process: ChildProcess
  /** 0 while it is not there. */
  port: number
}

/** A Redis that keeps its data, and instances in processes of their own, each behind its own wire. */
export class Stack {
  readonly instances: Instance[] = []
  /** What instances had unhandled, or how they ended by themselves. */
  readonly faults: string[] = []
  redis!: TestRedis
  readonly #t: Test
  #folder = ''

  constructor (t: Test) {
    this.#t = t
  }

  async start (count: number): Promise<void> {
    this.#folder = await mkdtemp(join(tmpdir(), 'chaos-'))
    this.#t.teardown(async () => await rm(this.#folder, { recursive: true, force: true }))
    this.redis = await startRedis(this.#t, { appendonly: this.#folder, args: ['--appendfsync', 'no'] })
    for (let n = 0; n < count; n++) {
      const wire = await Wire.start(this.redis.port)
      this.#t.teardown(() => wire.close())
      this.instances.push({ wire, process: undefined as unknown as ChildProcess, port: 0 })
    }
    this.#t.teardown(() => { for (const { process } of this.instances) process?.kill('SIGKILL') })
    await Promise.all(this.instances.map(async instance => await this.spawn(instance)))
  }

  /** Ports of the instances that take connections. */
  get ports (): number[] {
    return this.instances.map(({ port }) => port).filter(port => port > 0)
  }

  async spawn (instance: Instance): Promise<void> {
    const child = forkProgram(program, [instance.wire.url])
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

  /** SIGKILL and a new server on the same port, with or without the data. */
  async restartRedis (keep: boolean, whileDown: () => Promise<void>): Promise<void> {
    await this.redis.kill()
    if (!keep) for (const name of await readdir(this.#folder)) await rm(join(this.#folder, name), { recursive: true })
    await whileDown()
    await this.redis.restart()
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
