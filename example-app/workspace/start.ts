import { fork } from 'node:child_process'
import { closeOnSignal } from '../signals.ts'
import { Instances } from './instances.ts'
import { Roles } from './people.ts'
import { startRedis } from './redis.ts'

// What `npm run workspace` runs: a Redis unless REDIS_URL names one, two instances on one port, and a worker. On SIGHUP a new instance
// takes the place of each, one after another, as in a deploy.

// At first nothing runs but Redis, which ends with this process.
let close = async (): Promise<void> => process.exit()
closeOnSignal(async () => await close())

const port = process.env.PORT || '8090'
const redis = process.env.REDIS_URL ? undefined : await startRedis()
const redisUrl = process.env.REDIS_URL || redis?.url || ''
const settings = { ...process.env, PORT: port, REDIS_URL: redisUrl }

const roles = new Roles(redisUrl)
await roles.begin()
roles.close()

const instances = new Instances(settings)
const worker = fork(new URL('worker.ts', import.meta.url), { env: settings })
close = async () => {
  worker.kill()
  await instances.close()
  redis?.close()
}
process.on('SIGHUP', () => { void instances.replace() })

try {
  await instances.start(2)
  console.log(`
  The workspace is on http://127.0.0.1:${port}
  kill -HUP ${process.pid} deploys: it replaces both instances. Ctrl-C ends it.
`)
} catch (error) {
  console.error(error)
  process.exitCode = 1
  await close()
}
