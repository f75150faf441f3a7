import t from 'tap'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { childEnvironment, nodeArguments } from '../helpers/child.ts'
import { until } from '../helpers/until.ts'

t.test('the Redis of the workspace ends with its process, however that ends', async t => {
  const file = new URL('../../example-app/workspace/redis.ts', import.meta.url)
  const program = `import { startRedis } from '${file.href}'; console.log((await startRedis()).url); process.exit(1)`
  const child = spawn(process.execPath, [...nodeArguments, '--input-type=module', '--eval', program], {
    env: childEnvironment(), stdio: ['ignore', 'pipe', 'inherit']
  })
  let url = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { url += text })
  t.strictSame(await once(child, 'close'), [1, null])
  const { hostname, port } = new URL(url)
  await until(async () => {
    const socket = connect(Number(port), hostname)
    try {
      await once(socket, 'connect')
      return false
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === 'ECONNREFUSED'
    } finally {
      socket.destroy()
    }
  })
})
