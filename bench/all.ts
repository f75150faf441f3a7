// Runs every scenario that measures costs, one after the other, and writes the report: all.ts [--runs 5] …
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const here = (file: string): string => fileURLToPath(new URL(file, import.meta.url))
const run = (...args: readonly string[]): void => {
  const { status } = spawnSync(process.execPath, ['--import', 'tsx', ...args], { cwd: here('.'), stdio: 'inherit' })
  if (status !== 0) throw new Error(`${args.slice(0, 2).join(' ')} failed`)
}

for (const scenario of ['fan-out', 'small-groups', 'join-storm', 'idle', 'slow-client', 'sizes']) {
  run(here('run.ts'), scenario, ...process.argv.slice(2))
}
run(here('report/report.ts'))
