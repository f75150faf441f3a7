import { execFileSync, spawn, type ChildProcessByStdio } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { endWithThis } from './child.ts'

const sources = {
  load: ['load.c', 'client.c', 'client.h', 'histogram.h', 'process.h'],
  floor: ['floor.c', 'process.h']
} as const
type NativeName = keyof typeof sources

const folder = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

/** Compiles a program unless it is there already; returns its path. */
export function compile (name: NativeName): string {
  const files = sources[name].map(file => folder(`../native/${file}`))
  const hash = createHash('sha256')
  for (const file of files) hash.update(readFileSync(file))
  const cache = folder('../node_modules/.cache/native/')
  const program = `${cache}${name}-${hash.digest('hex').slice(0, 12)}`
  if (existsSync(program)) return program
  mkdirSync(cache, { recursive: true })
  const unfinished = `${program}.${process.pid}`
  try {
    execFileSync('cc', ['-O2', '-o', unfinished, ...files.filter(file => file.endsWith('.c'))], { stdio: ['ignore', 'inherit', 'inherit'] })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    throw new Error('the load generator is written in C: install a compiler that is called cc (apt-get install gcc, or build-essential)')
  }
  renameSync(unfinished, program)
  return program
}

/** A native program that answers each line with a line of JSON. It ends with this process. */
export class Native {
  readonly pid: number
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  readonly #waiting: Array<{ resolve (answer: unknown): void, reject (error: Error): void }> = []

  constructor (name: NativeName) {
    this.#child = spawn(compile(name), { stdio: ['pipe', 'pipe', 'inherit'] })
    this.pid = this.#child.pid ?? 0
    endWithThis(this.#child)
    createInterface({ input: this.#child.stdout }).on('line', line => {
      const { resolve, reject } = this.#waiting.shift() ?? {}
      const answer = JSON.parse(line) as { error?: string }
      if (answer.error === undefined) resolve?.(answer)
      else reject?.(new Error(`${name}: ${answer.error}`))
    })
    this.#child.stdin.on('error', () => {}) // its end says more
    this.#child.once('exit', (code, signal) => {
      for (const { reject } of this.#waiting.splice(0)) reject(new Error(`${name} ended with ${code ?? signal}`))
    })
  }

  async ask<Answer> (line: string): Promise<Answer> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) throw new Error('it has ended')
    const answer = new Promise<unknown>((resolve, reject) => this.#waiting.push({ resolve, reject }))
    this.#child.stdin.write(`${line}\n`)
    return await answer as Answer
  }

  async end (): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const gone = new Promise(resolve => this.#child.once('exit', resolve))
    this.#child.kill('SIGKILL')
    await gone
  }
}
