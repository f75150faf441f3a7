import type { Test } from 'tap'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { WebsocketGroupsOptions } from '../../plugin.ts'
import { forkProgram } from './child.ts'
import type { Answer, Arguments, Question, Ready } from './instance-process.ts'
import type { TestRedis } from './redis.ts'
import type { Machine } from './machine.ts'
import { until } from './until.ts'

interface InstanceOptions {
  readonly redisUrl: string
  /** More options of the plugin; they cross a process border, so no functions. */
  readonly options?: Omit<WebsocketGroupsOptions, 'redis'>
  /** With the hooks that tell of the first and the last of a group, and of a user: ask `told` what they were called for. @default false */
  readonly hooks?: boolean
  /** @default 0, a free one */
  readonly port?: number
  /** Another program that understands what instance-process.ts does: the one of an earlier version. */
  readonly program?: string
}

/** An application with the plugin in a process of its own; see instance-process.ts for its route and for what it can be asked. */
export interface Instance {
  readonly id: string
  readonly port: number
  /** `http://127.0.0.1:<port>` */
  readonly url: string
  readonly pid: number
  /** How long it took from `listen` to ready. */
  readonly bootMs: number
  ask<Name extends Question> (name: Name, ...args: Arguments<Name>): Promise<Answer<Name>>
  /** SIGKILL. Resolves when the process is gone. */
  kill (): Promise<void>
  /** Closes the application, then ends the process. Rejects when anything in it went unhandled. */
  close (): Promise<void>
}

const ownProgram = fileURLToPath(new URL('./instance-process.ts', import.meta.url))

/** Starts an instance; it dies with the test's process, however that goes. Rejects with the code of the error that stopped its boot. */
export async function startInstance (
  t: Test, { redisUrl, options = {}, hooks = false, port = 0, program = ownProgram }: InstanceOptions
): Promise<Instance> {
  const child = forkProgram(program)
  const gone = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await gone
  })
  await answer(child, 'listening')
  child.send({ port, hooks, start: { redis: redisUrl, closeGraceMs: 500, lingerMs: 100, ...options } })
  const ready = await answer(child, 'ready') as Ready

  const pending = new Map<number, { resolve (value: never): void, reject (error: Error): void }>()
  let last = 0
  child.on('message', ({ id, value, error }: { id: number, value: never, error?: Failure }) => {
    const waiting = pending.get(id)
    pending.delete(id)
    if (error === undefined) waiting?.resolve(value)
    else waiting?.reject(toError(error))
  })
  void gone.then(() => {
    for (const { reject } of pending.values()) reject(new Error(`instance ${ready.instanceId} is gone`))
  })

  const instance: Instance = {
    id: ready.instanceId,
    port: ready.port,
    url: `http://127.0.0.1:${ready.port}`,
    pid: child.pid ?? 0,
    bootMs: ready.bootMs,
    ask (name, ...args) {
      return new Promise((resolve, reject) => {
        pending.set(++last, { resolve, reject })
        child.send({ id: last, name, args }, error => { if (error !== null) reject(error) })
      })
    },
    async kill () {
      child.kill('SIGKILL')
      await gone
    },
    async close () {
      await instance.ask('close')
      const faults = await instance.ask('faults')
      child.kill()
      await gone
      if (faults.length > 0) throw new Error(`instance ${ready.instanceId} had ${faults.length} unhandled: ${faults.join('\n')}`)
    }
  }
  return instance
}

interface Failure { readonly message: string, readonly code?: string, readonly afterMs?: number }

function toError ({ message, ...rest }: Failure): Error {
  return Object.assign(new Error(message), rest)
}

async function answer (child: ChildProcess, key: 'listening' | 'ready'): Promise<unknown> {
  return await new Promise((resolve, reject) => {
    const died = (): void => reject(new Error('the instance died while it started'))
    child.once('exit', died)
    child.once('message', (message: Record<string, unknown>) => {
      child.off('exit', died)
      if ('refused' in message) reject(toError(message.refused as Failure))
      else resolve(message[key])
    })
  })
}

/** Several instances on one Redis. */
export async function startInstances (t: Test, count: number, options: InstanceOptions): Promise<Instance[]> {
  return await Promise.all(Array.from({ length: count }, async () => await startInstance(t, options)))
}

/** A number of `registry.stats()`, summed up. */
export async function sum (instances: readonly Instance[], name: string): Promise<number> {
  const values = await Promise.all(instances.map(async one => (await one.ask('stats'))[name] ?? 0))
  return values.reduce((sum, value) => sum + value, 0)
}

/** Where what an instance says of the cluster differs from who really holds a connection, one line each. Looks at every n-th group. */
export async function differences (instances: readonly Instance[], groups: readonly string[] = [], every = 1): Promise<string[]> {
  const held = await Promise.all(instances.map(async one => await one.ask('local')))
  const truth = new Map<string, string[]>(groups.map(group => [group, []]))
  for (const local of held) {
    for (const [group, ids] of Object.entries(local)) truth.set(group, [...truth.get(group) ?? [], ...ids])
  }
  const names = [...truth.keys()].filter((_, index) => index % every === 0)
  const found: string[] = []
  await Promise.all(instances.map(async one => {
    for (const { group, count, members } of await one.ask('view', names)) {
      const expected = (truth.get(group) ?? []).sort()
      if (count !== expected.length) found.push(`${one.id}: ${group} counts ${count}, should be ${expected.length}`)
      const strange = members.filter(id => !expected.includes(id))
      const missing = expected.filter(id => !members.includes(id))
      if (strange.length > 0) found.push(`${one.id}: ${group} has stale members ${strange.slice(0, 3).join(' ')} (${strange.length})`)
      if (missing.length > 0) found.push(`${one.id}: ${group} lacks ${missing.slice(0, 3).join(' ')} (${missing.length})`)
    }
  }))
  return found
}

interface ExactOptions {
  /** Names that may be empty by now. */
  readonly groups?: readonly string[]
  /** Looks at every n-th group only. */
  readonly every?: number
  readonly timeoutMs?: number
}

/** Resolves when all instances are up and what they say of all groups is the truth. Returns how long it took. */
export async function exact (
  instances: readonly Instance[], { groups = [], every, timeoutMs = 60_000 }: ExactOptions = {}
): Promise<number> {
  const began = performance.now()
  const last: { states: string[], problems: Record<string, readonly string[]>, wrong: string[] } = { states: [], problems: {}, wrong: [] }
  try {
    await until(async () => {
      const healths = await Promise.all(instances.map(async one => await one.ask('health')))
      last.states = healths.map(({ status }) => status)
      last.problems = Object.fromEntries(healths.map(({ problems }, index) => [instances[index]?.id ?? '', problems] as const)
        .filter(([, problems]) => problems.length > 0))
      if (last.states.some(state => state !== 'up')) return false
      last.wrong = await differences(instances, groups, every)
      return last.wrong.length === 0
    }, { timeoutMs, everyMs: 20 })
  } catch (error) {
    throw new Error(`not exact within ${timeoutMs} ms: ${JSON.stringify(last)}`, { cause: error })
  }
  return performance.now() - began
}

/** The same, within a limit. */
export async function exactWithin (
  t: Test, machine: Machine, limitMs: number, what: string, instances: readonly Instance[], options?: ExactOptions
): Promise<void> {
  machine.restart()
  machine.within(t, await exact(instances, options), limitMs, `${what} all is exact`)
}

/** The end of every fault test: all instances close without an unhandled error, and nothing of them stays in Redis. */
export async function closeClean (t: Test, redis: TestRedis, instances: readonly Instance[]): Promise<void> {
  for (const instance of instances) await t.resolves(instance.close(), 'no unhandled rejection, no uncaught exception')
  // Redis notices the end of a connection a moment after its client is done with it.
  await until(async () => (await redis.channels()).length === 0).catch(() => {})
  t.strictSame(await redis.leftovers(), [], 'no key and no channel is left')
}
