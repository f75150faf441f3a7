import type { FastifyInstance } from 'fastify'
import { memoryCluster } from 'fastify-websocket-groups'
import { buildApp } from './app.ts'
import { banner } from './banner.ts'
import { ConfigError, readConfig, type Config } from './config.ts'
import { closeOnSignal } from './signals.ts'

async function main (): Promise<void> {
  const config = readConfig(process.env)
  const apps = build(config)
  const close = async (): Promise<void> => { await Promise.all(apps.map(async app => await app.close())) }
  closeOnSignal(close)

  try {
    const urls = await Promise.all(apps.map(async (app, at) => await app.listen({ host: config.host, port: config.instances[at]?.port })))
    console.log(banner(config, urls, apps.map(app => app.registry.health())))
  } catch (error) {
    await close()
    throw error
  }
}

function build ({ instances, redis, logLevel }: Config): FastifyInstance[] {
  const cluster = memoryCluster()
  return instances.map(({ instanceId }) => buildApp({
    instanceId,
    logLevel,
    ...(redis === undefined ? { backplane: cluster.backplane() } : { redis })
  }))
}

/** Returns a sentence for errors that a wrong setting explains, and the error itself, with its stack trace, for all others. */
function explain (error: unknown): unknown {
  if (error instanceof ConfigError) return error.message
  if (!(error instanceof Error)) return error
  if (!('code' in error)) return error
  if (error.code === 'WSG_REDIS_REFUSED') {
    return `The Redis of REDIS_URL refuses: ${'detail' in error ? String(error.detail) : error.message}`
  }
  // The plugin's own errors are sentences too, such as that a Redis is too old.
  if (String(error.code).startsWith('WSG_')) return error.message
  if (error.code === 'EADDRINUSE' && 'port' in error) {
    return `Port ${error.port} is in use already: end what runs there, or set PORT to another one.`
  }
  if (error.code === 'EACCES' && 'port' in error) {
    return `Port ${error.port} needs rights that this process does not have: set PORT to one above 1023.`
  }
  if (error.code === 'ENOTFOUND' || error.code === 'EADDRNOTAVAIL') return `HOST is not an address of this machine: ${error.message}.`
  return error
}

try {
  await main()
} catch (error) {
  console.error(explain(error))
  process.exitCode = 1
}
