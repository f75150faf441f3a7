import { fork, type ChildProcess, type ForkOptions } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join, relative } from 'node:path'

const root = join(import.meta.dirname, '..', '..')
const loader = new URL('../../scripts/typescript.mjs', import.meta.url).href
const coverage = process.env._TAPJS_PROCESSINFO_COVERAGE_ === '1'

/** Arguments that let a node process run TypeScript. A process that is measured for coverage passes on what tap gave it. */
export const nodeArguments: readonly string[] = coverage ? process.execArgv : ['--enable-source-maps', '--import', loader]

/** The environment without what tap loads into its tests, which a program beside them has no use for. */
export function childEnvironment (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const { NODE_OPTIONS, ...env } = process.env
  return { ...env, ...(coverage ? { NODE_OPTIONS } : {}), ...more }
}

/** What scripts/test-programs.mjs made of the program, if it did. Coverage is measured of the sources. */
function built (file: string): string | undefined {
  const { TEST_PROGRAMS } = process.env
  if (TEST_PROGRAMS === undefined || coverage) return undefined
  const program = join(TEST_PROGRAMS, relative(root, file).replace(/\.ts$/, '.mjs'))
  return existsSync(program) ? program : undefined
}

/** Forks a TypeScript program. It talks to the test over IPC. */
export function forkProgram (file: string, args: readonly string[] = [], { env, ...options }: ForkOptions = {}): ChildProcess {
  const program = built(file)
  return fork(program ?? file, args, {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    ...options,
    execArgv: program === undefined ? [...nodeArguments] : ['--enable-source-maps'],
    env: childEnvironment(env)
  })
}
