const logLevels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']

export interface Config {
  readonly host: string
  readonly logLevel: string
  readonly redis: string | undefined
  readonly instances: ReadonlyArray<{ readonly instanceId: string, readonly port: number }>
}

/** A setting that makes no sense; the message is one sentence for the person who made it. */
export class ConfigError extends Error {}

/** With PORT one instance, without it two, so that there is a cluster to see. A variable that is empty counts as unset. */
export function readConfig (env: NodeJS.ProcessEnv): Config {
  const port = env.PORT ? portFrom(env.PORT) : undefined
  return {
    host: env.HOST || '127.0.0.1',
    logLevel: logLevelFrom(env.LOG_LEVEL || 'info'),
    redis: env.REDIS_URL ? redisFrom(env.REDIS_URL) : undefined,
    instances: port === undefined
      ? [{ instanceId: 'inst1', port: 8080 }, { instanceId: 'inst2', port: 8081 }]
      : [{ instanceId: instanceIdFrom(env.INSTANCE_ID || `port-${port}`), port }]
  }
}

function portFrom (value: string): number {
  if (!/^\d{1,5}$/.test(value) || Number(value) > 65_535) throw new ConfigError(`PORT must be a number from 0 to 65535, got '${value}'.`)
  return Number(value)
}

function logLevelFrom (value: string): string {
  if (!logLevels.includes(value)) throw new ConfigError(`LOG_LEVEL must be one of ${logLevels.join(', ')}, got '${value}'.`)
  return value
}

function instanceIdFrom (value: string): string {
  if (value.length > 100) throw new ConfigError(`INSTANCE_ID must have at most 100 characters, got ${value.length}.`)
  return value
}

function redisFrom (value: string): string {
  // The value is not repeated: it may hold a password.
  if (!/^rediss?:\/\/./.test(value) || !URL.canParse(value)) {
    throw new ConfigError('REDIS_URL must be a URL such as redis://localhost:6379 or rediss://user:password@host:6380.')
  }
  return value
}
