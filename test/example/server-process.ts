import type { Test } from 'tap'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { childEnvironment, nodeArguments } from '../helpers/child.ts'
import { until } from '../helpers/until.ts'

const file = fileURLToPath(new URL('../../example-app/server.ts', import.meta.url))
const ours = ['PORT', 'HOST', 'INSTANCE_ID', 'REDIS_URL', 'LOG_LEVEL']

export interface ServerProcess {
  readonly stdout: string
  readonly stderr: string
  /** The URLs that its greeting names. */
  readonly urls: readonly string[]
  /** The lines of its log. */
  readonly log: ReadonlyArray<Readonly<Record<string, unknown>>>
  readonly exited: Promise<{ readonly code: number | null, readonly signal: NodeJS.Signals | null }>
  /** Resolves when the greeting is out. */
  greeted (): Promise<void>
  kill (signal: NodeJS.Signals): void
}

/** Runs server.ts as `npm start` does, with these settings and no others. */
export function startServer (t: Test, settings: Readonly<Record<string, string>>): ServerProcess {
  const inherited = Object.entries(childEnvironment()).filter(([name]) => !ours.includes(name))
  const child = spawn(process.execPath, [...nodeArguments, file], {
    env: { ...Object.fromEntries(inherited), ...settings }, stdio: ['ignore', 'pipe', 'pipe']
  })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => { stdout += chunk })
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => { stderr += chunk })
  let ended = false
  const exited = once(child, 'close').then(([code, signal]: Array<number | NodeJS.Signals | null>) => {
    ended = true
    return { code: typeof code === 'number' ? code : null, signal: typeof signal === 'string' ? signal : null }
  })
  t.teardown(async () => {
    child.kill('SIGKILL')
    await exited
  })
  return {
    get stdout () { return stdout },
    get stderr () { return stderr },
    get urls () { return Array.from(stdout.matchAll(/^ {2}\S+ {2}(http:\S+)$/gm), ([, url]) => url ?? '') },
    get log () {
      return stdout.split('\n').filter(line => line.startsWith('{') && line.endsWith('}')).map(
        line => JSON.parse(line) as Record<string, unknown>
      )
    },
    exited,
    async greeted () {
      await until(() => stdout.includes('Ctrl-C ends it.') || ended, { timeoutMs: 60_000, what: 'the server to greet' })
      if (ended) throw new Error(`the server ended: ${stderr}`)
    },
    kill (signal) { child.kill(signal) }
  }
}
