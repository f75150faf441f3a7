import type { Test } from 'tap'
import { once } from 'node:events'
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { forkProgram } from '../helpers/child.ts'
import { freePort } from '../helpers/ports.ts'
import { until } from '../helpers/until.ts'

const file = fileURLToPath(new URL('../../example-app/workspace/start.ts', import.meta.url))

export interface Program {
  /** `127.0.0.1:<port>` */
  readonly host: string
  readonly process: ChildProcess
  /** What it wrote. */
  readonly output: string
  /** Ends it, and everything that it started. Resolves with the exit code. */
  close (): Promise<number | null>
}

/** Starts the workspace as its command does: a Redis, two instances, a worker. */
export async function startWorkspace (t: Test): Promise<Program> {
  const port = await freePort()
  const child = forkProgram(file, [], {
    env: { PORT: String(port), LOG_LEVEL: 'warn', REDIS_URL: '' }, stdio: ['ignore', 'pipe', 'pipe', 'ipc']
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', (text: string) => { output += text })
  const exited = once(child, 'exit').then(([code]) => code as number | null)
  const program: Program = {
    host: `127.0.0.1:${port}`,
    process: child,
    get output () { return output },
    async close () {
      child.kill('SIGTERM')
      return await exited
    }
  }
  t.teardown(async () => { await program.close() })
  await until(() => output.includes('Ctrl-C ends it') || child.exitCode !== null, { timeoutMs: 60_000, what: 'the workspace to start' })
  if (child.exitCode !== null) throw new Error(output)
  return program
}
