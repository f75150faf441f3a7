import t from 'tap'
import { once } from 'node:events'
import { Redis } from 'ioredis'
import { fileURLToPath } from 'node:url'
import { forkProgram } from '../helpers/child.ts'
import { freePort } from '../helpers/ports.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

// The processes of the workspace, one at a time.

const pathOf = (name: string): string => fileURLToPath(new URL(`../../example-app/workspace/${name}`, import.meta.url))

t.test('a job that fails is done later, and the worker goes on', async t => {
  const redis = await startRedis(t)
  const worker = forkProgram(pathOf('worker.ts'), [], { env: { REDIS_URL: redis.url }, stdio: ['ignore', 'inherit', 'pipe', 'ipc'] })
  t.teardown(() => worker.kill())
  let errors = ''
  worker.stderr?.setEncoding('utf8').on('data', (text: string) => { errors += text })
  const listener = new Redis(redis.url)
  t.teardown(() => listener.disconnect())
  let told = 0
  await listener.subscribe('wsg:{0}:c:u:ann')
  listener.on('message', () => { told++ })
  const ask = async (room: string): Promise<void> => { await redis.admin.lpush('workspace:jobs', JSON.stringify({ userId: 'ann', room })) }

  // The history of this room cannot be read.
  await redis.admin.set('wsg:{0}:h:board', 'no hash')
  await ask('board')
  await until(() => errors.includes('WSG_BACKPLANE_UNAVAILABLE'), { what: 'the first attempt' })
  await ask('general')
  await until(() => told === 1, { what: 'the other job' })
  await redis.admin.del('wsg:{0}:h:board')
  await until(() => told === 2, { what: 'the job that had failed' })
  t.equal(worker.exitCode, null)
})

for (const [what, which, signal] of [
  ['the first instance dies as its successor starts', 0, 'SIGKILL'],
  ['the second instance dies before its turn', 1, 'SIGKILL'],
  ['an instance hangs', 0, 'SIGSTOP']
] as const) {
  t.test(`a deploy ends, with as many instances as before, when ${what}`, async t => {
    const redis = await startRedis(t)
    const child = forkProgram(fileURLToPath(new URL('deploy-program.ts', import.meta.url)), [String(which), signal], {
      env: { REDIS_URL: redis.url, PORT: String(await freePort()), LOG_LEVEL: 'silent' }, stdio: ['ignore', 'pipe', 'inherit', 'ipc']
    })
    t.teardown(() => child.kill('SIGKILL'))
    let output = ''
    child.stdout?.setEncoding('utf8').on('data', (text: string) => { output += text })
    t.strictSame(await once(child, 'close'), [0, null])
    t.strictSame(output.trim().split('\n'), ['replaced 2 false', 'closed 0'])
  })
}
