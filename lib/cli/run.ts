import { versions } from '../version.ts'
import { parseBench, usage, UsageError, type BenchSettings } from './arguments.ts'
import { bench, BenchFailure } from './bench.ts'
import { Progress } from './progress.ts'
import { isFlawless, toTable } from './report.ts'

/** The exit code of a program: 1 when something was refused, lost or cut off, 2 when the arguments are wrong. */
type ExitCode = 0 | 1 | 2

/** What this program uses of `process`. */
interface Terminal {
  readonly stdout: Pick<NodeJS.WriteStream, 'write'>
  readonly stderr: Pick<NodeJS.WriteStream, 'write' | 'isTTY'>
  once (event: 'SIGINT', listener: () => void): unknown
  off (event: 'SIGINT', listener: () => void): unknown
}

/** The command line `fastify-websocket-groups`. */
export async function run (args: readonly string[], terminal: Terminal): Promise<ExitCode> {
  const [command, ...rest] = args
  if (command === '--version') return say(terminal, versions.version)
  if (command === undefined || command === '--help' || command === 'help' || rest.includes('--help')) return say(terminal, usage)
  try {
    if (command !== 'bench') throw new UsageError(`there is no command ${command}`)
    return await runBench(parseBench(rest), terminal)
  } catch (error) {
    if (error instanceof UsageError) {
      terminal.stderr.write(`${error.message}\nSee npx fastify-websocket-groups --help\n`)
      return 2
    }
    if (!(error instanceof BenchFailure)) throw error
    terminal.stderr.write(`${error.message}\n`)
    return 1
  }
}

function say (terminal: Terminal, text: string): ExitCode {
  terminal.stdout.write(`${text}\n`)
  return 0
}

async function runBench (settings: BenchSettings, terminal: Terminal): Promise<ExitCode> {
  const interrupted = new AbortController()
  // The first Ctrl-C ends the measurement and shows what there is. The second one, without a listener, ends the program.
  const interrupt = (): void => interrupted.abort()
  terminal.once('SIGINT', interrupt)
  const progress = new Progress(terminal.stderr)
  try {
    const result = await bench(settings, progress, interrupted.signal)
    progress.end()
    terminal.stdout.write(settings.json ? `${JSON.stringify(result)}\n` : toTable(result))
    return isFlawless(result) ? 0 : 1
  } finally {
    progress.end()
    terminal.off('SIGINT', interrupt)
  }
}
