import { fork, type ChildProcess, type ForkOptions, type Serializable } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

type Calls<Api> =
  { [Name in keyof Api]: Api[Name] extends (...args: infer Args) => infer Result ? (...args: Args) => Promise<Awaited<Result>> : never }
interface Request { readonly id: number, readonly name: string, readonly args: readonly unknown[] }
interface Answer { readonly id: number, readonly result?: unknown, readonly error?: string }

export interface Child<Api> {
  readonly pid: number
  /** The functions that the process exposes. */
  readonly call: Calls<Api>
  /** Resolves when it is gone. */
  end (signal: NodeJS.Signals): Promise<void>
}

const children = new Set<ChildProcess>()

export function endWithThis (child: ChildProcess): void {
  children.add(child)
  child.once('exit', () => children.delete(child))
}

/** Starts a process that calls `expose`. It ends with this one. */
export async function start<Api> (file: string, args: readonly string[] = [], options: ForkOptions = {}): Promise<Child<Api>> {
  const child = fork(
    fileURLToPath(new URL(file, import.meta.url)), args, { execArgv: ['--import', 'tsx'], serialization: 'advanced', ...options }
  )
  endWithThis(child)
  const waiting = new Map<number, (answer: Answer) => void>()
  const early = new AbortController()
  child.once('exit', code => early.abort(new Error(`${file} ${args.join(' ')} ended at once with ${code}`)))
  await once(child, 'message', { signal: early.signal }).catch(() => early.signal.throwIfAborted())
  child.on('message', (answer: Answer) => waiting.get(answer.id)?.(answer))
  child.once('exit', (code, signal) => {
    for (const [id, settle] of waiting) settle({ id, error: `${file} ended with ${code ?? signal}` })
  })
  let latest = 0
  const call = async (name: string, args: readonly unknown[]): Promise<unknown> => {
    if (!child.connected) throw new Error(`${file} is gone`)
    const id = ++latest
    const answered = new Promise<Answer>(resolve => waiting.set(id, resolve))
    child.send({ id, name, args } satisfies Request as Serializable)
    const { result, error } = await answered
    waiting.delete(id)
    if (error !== undefined) throw new Error(error)
    return result
  }
  return {
    pid: child.pid ?? 0,
    call: new Proxy({} as Calls<Api>, { get: (_, name: string) => async (...args: unknown[]) => await call(name, args) }),
    async end (signal) {
      if (child.exitCode !== null || child.signalCode !== null) return
      const gone = once(child, 'exit')
      child.kill(signal)
      await gone
    }
  }
}

export function endAll (): void {
  for (const child of children) child.kill('SIGKILL')
}

/** In the child: answers calls, until the parent is gone. */
export function expose (api: object): void {
  process.on('message', async ({ id, name, args }: Request) => {
    try {
      const method = (api as Record<string, (...args: readonly unknown[]) => unknown>)[name]
      process.send?.({ id, result: await method?.(...args) } satisfies Answer)
    } catch (error) {
      process.send?.({ id, error: String(error) } satisfies Answer)
    }
  })
  process.once('disconnect', () => process.exit())
  process.send?.('ready')
}
