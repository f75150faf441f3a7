// The long form of the chaos test: node scripts/chaos.mjs [--messages 200000] [--seed n] [--seconds 1800] [--verbose]
import { spawn } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { redisBinary } from './redis-binary.mjs'

const { values } = parseArgs({
  options: {
    messages: { type: 'string', default: '200000' },
    seed: { type: 'string', default: String(Date.now() % 1e9) },
    seconds: { type: 'string', default: '1800' },
    verbose: { type: 'boolean', default: false }
  }
})
const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const test = spawn(process.execPath, ['--import', 'tsx', join(root, 'test', 'faults', 'chaos', 'chaos.test.ts')], {
  cwd: root,
  stdio: 'inherit',
  env: {
    ...process.env,
    REDIS_SERVER_BIN: redisBinary(),
    CHAOS_MESSAGES: values.messages,
    CHAOS_SEED: values.seed,
    CHAOS_SECONDS: values.seconds,
    ...(values.verbose ? { CHAOS_VERBOSE: '1' } : {})
  }
})
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => test.kill(signal))
test.on('exit', (code, signal) => { process.exitCode = signal === null ? code ?? 1 : 1 })
