// The long form of the chaos tests:
//
//   node scripts/chaos.mjs [--part stack|log] [--store single|sentinel|cluster] [--messages 200000] [--seed n] [--seconds 1800] [--verbose]
//
// `stack`, unless told otherwise: the whole default stack, instances and their clients, on one Redis, on a master and a replica that
// sentinels watch over, or on a cluster. `log`: the logs of the Redis backplane alone, on one Redis, at ten times the rate.
import { spawn } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { redisBinary } from './redis-binary.mjs'

const programs = { stack: 'stack/stack.test.ts', log: 'chaos/chaos.test.ts' }

const { values } = parseArgs({
  options: {
    part: { type: 'string', default: 'stack' },
    store: { type: 'string', default: 'single' },
    messages: { type: 'string', default: '200000' },
    seed: { type: 'string', default: String(Date.now() % 1e9) },
    seconds: { type: 'string', default: '1800' },
    verbose: { type: 'boolean', default: false }
  }
})
const program = programs[values.part]
if (program === undefined) throw new TypeError(`--part is stack or log, not ${values.part}`)
if (!['single', 'sentinel', 'cluster'].includes(values.store) || (values.store !== 'single' && values.part === 'log')) {
  throw new TypeError('--store is single, or for the stack sentinel or cluster')
}
const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const test = spawn(process.execPath, ['--import', 'tsx', join(root, 'test', 'faults', program)], {
  cwd: root,
  stdio: 'inherit',
  env: {
    ...process.env,
    REDIS_SERVER_BIN: redisBinary(),
    CHAOS_STORE: values.store,
    CHAOS_MESSAGES: values.messages,
    CHAOS_SEED: values.seed,
    CHAOS_SECONDS: values.seconds,
    ...(values.verbose ? { CHAOS_VERBOSE: '1' } : {})
  }
})
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => test.kill(signal))
test.on('exit', (code, signal) => { process.exitCode = signal === null ? code ?? 1 : 1 })
