// The long form of the fuzz tests: node scripts/fuzz.mjs [--inputs 100000] [--seed n]
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { redisBinary } from './redis-binary.mjs'

const { values } = parseArgs({
  options: {
    inputs: { type: 'string', default: '100000' },
    seed: { type: 'string', default: String(Date.now() % 1e9) }
  }
})
const folder = join(dirname(fileURLToPath(import.meta.url)), '..', 'test', 'fuzz')
const env = { ...process.env, REDIS_SERVER_BIN: redisBinary(), FUZZ_INPUTS: values.inputs, FUZZ_SEED: values.seed, TAP_TIMEOUT: '3600' }
for (const file of readdirSync(folder).filter(name => name.endsWith('.test.ts'))) {
  const test = spawn(process.execPath, ['--import', 'tsx', join(folder, file)], { cwd: join(folder, '..', '..'), stdio: 'inherit', env })
  const [code] = await once(test, 'exit')
  if (code !== 0) process.exitCode = 1
}
