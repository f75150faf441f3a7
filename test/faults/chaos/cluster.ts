import type { Test } from 'tap'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { forkProgram } from '../../helpers/child.ts'
import { startRedis, type TestRedis } from '../../helpers/redis.ts'
import { until } from '../../helpers/until.ts'
import type { Assignment, Order, Report } from './events.ts'
import type { Oracle } from './oracle.ts'
import { Wire } from './wire.ts'

const program = fileURLToPath(new URL('instance.ts', import.meta.url))

export const groups = Array.from({ length: 20 }, (_, n) => ({ name: `group ${n}`, keep: n < 16 ? 4_000 : 20 }))

interface Instance {
  readonly wire: Wire
  readonly policy: Assignment['policy']
  /** Name of its present life, for the oracle. */
  life: string
  process: ChildProcess
  idle: boolean
}

/** A Redis that keeps its data, a replica when one is wanted, and instances in processes of their own, each behind its own wire. */
export class Cluster {
  readonly instances: Instance[] = []
  master!: TestRedis
  readonly #t: Test
  readonly #oracle: Oracle
  #folder = ''
  #lives = 0
  #rate = 0
  #stopping = false

  constructor (t: Test, oracle: Oracle) {
    this.#t = t
    this.#oracle = oracle
  }

  async start (count: number, seed: number): Promise<void> {
    this.master = await this.#redis()
    for (let n = 0; n < count; n++) {
      const wire = await Wire.start(this.master.port)
      this.#t.teardown(() => wire.close())
      const policy = n === count - 1 ? 'queue' : 'reject'
      const instance: Instance = { wire, policy, life: '', process: undefined as unknown as ChildProcess, idle: true }
      this.instances.push(instance)
    }
    this.#t.teardown(() => {
      this.#stopping = true
      for (const { process } of this.instances) process?.kill('SIGKILL')
    })
    await Promise.all(this.instances.map(async (instance, n) => await this.spawn(instance, seed + n)))
  }

  get lives (): string[] {
    return this.instances.map(({ life }) => life)
  }

  /** Messages a second of all together. */
  publish (rate: number): void {
    this.#rate = rate
    for (const instance of this.instances) this.#order(instance, { publish: rate / this.instances.length })
  }

  /** Stops publishing, and resolves when no append is under way any more. */
  async pause (): Promise<void> {
    for (const instance of this.instances) instance.idle = false
    for (const instance of this.instances) this.#order(instance, { publish: 0 })
    await until(() => this.instances.every(({ idle }) => idle), { timeoutMs: 60_000, what: 'all appends to settle' })
  }

  async spawn (instance: Instance, seed: number): Promise<void> {
    const life = `${this.instances.indexOf(instance)}.${++this.#lives}`
    const assignment: Assignment = { url: instance.wire.url, groups, policy: instance.policy, seed }
    const child = forkProgram(program, [JSON.stringify(assignment)])
    instance.process = child
    instance.life = life
    child.on('message', (reports: Report[]) => {
      for (const report of reports) {
        if (report[0] === 'idle') instance.idle = true
        else this.#oracle.report(life, report)
      }
    })
    child.on('exit', (code, signal) => {
      // Or the channel of one that was killed stays, and this process with it.
      if (child.connected) child.disconnect()
      if (!this.#stopping && signal !== 'SIGKILL') this.#oracle.violations.push(`instance ${life} ended by itself: ${code ?? signal}`)
    })
    await once(child, 'message')
    this.#order(instance, { publish: this.#rate / this.instances.length })
  }

  async kill (instance: Instance): Promise<void> {
    const gone = once(instance.process, 'exit')
    instance.process.kill('SIGKILL')
    await gone
  }

  async stop (): Promise<void> {
    this.#stopping = true
    await Promise.all(this.instances.map(async instance => {
      const gone = once(instance.process, 'exit')
      this.#order(instance, { stop: true })
      await gone
    }))
  }

  /** SIGKILL and a new server on the same port, with or without the data. */
  async restart (keep: boolean, whileDown: () => Promise<void>): Promise<void> {
    await this.master.kill()
    if (!keep) for (const name of await readdir(this.#folder)) await rm(join(this.#folder, name), { recursive: true })
    await whileDown()
    await this.master.restart()
  }

  /** The ends of all logs, by what a server says. */
  async tops (redis = this.master): Promise<string[]> {
    return await Promise.all(groups.map(async ({ name }) => {
      const [epoch, offset, nonce] = await redis.admin.hmgetBuffer(`wsg:{0}:h:${name}`, 'e', 's', 'n')
      return epoch && offset && nonce ? `${epoch.toString('hex')} ${offset.toString()} ${nonce.readUInt32BE()}` : ''
    }))
  }

  /** Resolves when every instance has come to where the logs ended at the time of the call, or further. */
  async caughtUp (): Promise<void> {
    const timeoutMs = 20_000
    const tops = await this.tops()
    const behind = (): string[] => this.lives.flatMap(life => tops.filter((top, group) => {
      const [epoch, offset] = top.split(' ')
      const last = this.#oracle.last(life, group)
      return top !== '' && (last?.epoch !== epoch || last?.offset === undefined || last.offset < Number(offset))
    }).map(top => `${life} has not got to ${top}`))
    try {
      await until(() => behind().length === 0, { timeoutMs, what: 'the instances to catch up' })
    } catch {
      this.#oracle.violate('lostSilently', `not caught up after ${timeoutMs} ms: ${behind().slice(0, 5).join(', ')}`, behind().length)
    }
  }

  /** A failover to a replica that lags behind by what is published meanwhile. Resolves with the groups whose latest messages were lost. */
  async failover (lag: () => Promise<void>): Promise<number[]> {
    const old = this.master
    const oldFolder = this.#folder
    const replica = await this.#redis()
    const replication = await Wire.start(old.port)
    try {
      await replica.admin.replicaof('127.0.0.1', replication.port)
      await until(async () => /master_link_status:up/.test(await replica.admin.info('replication')), {
        timeoutMs: 15_000, what: 'the replica to be in sync'
      })
      await until(async () => /aof_rewrite_in_progress:0/.test(await replica.admin.info('persistence')), {
        timeoutMs: 15_000, what: 'the replica to have its data on disk'
      })
      replication.blackhole()
      await lag()
      const rate = this.#rate
      // What the old master acknowledged in its last instant, and nobody saw, nobody could tell of.
      await this.pause()
      await this.caughtUp()
      const [before, after] = [await this.tops(old), await this.tops(replica)]
      await old.kill()
      await replica.admin.replicaof('NO', 'ONE')
      this.master = replica
      this.publish(rate)
      const lost = groups.map((_, group) => group).filter(group => before[group] !== after[group])
      this.#oracle.dataLost(this.lives, lost)
      for (const { wire } of this.instances) await wire.lead(replica.port)
      return lost
    } finally {
      replication.close()
      await old.close()
      await rm(oldFolder, { recursive: true, force: true })
    }
  }

  async #redis (): Promise<TestRedis> {
    this.#folder = await mkdtemp(join(tmpdir(), 'chaos-'))
    const folder = this.#folder
    const redis = await startRedis(this.#t, { appendonly: folder, args: ['--repl-diskless-sync-delay', '0', '--appendfsync', 'no'] })
    this.#t.teardown(async () => await rm(folder, { recursive: true, force: true }))
    return redis
  }

  #order ({ process }: Instance, order: Order): void {
    if (process.connected) process.send(order)
  }
}
