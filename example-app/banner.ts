import type { Health } from 'fastify-websocket-groups'
import type { Config } from './config.ts'
import { demoTokens } from './tokens.ts'

/** What a person who has just started this wants to know. */
export function banner (config: Config, urls: readonly string[], healths: readonly Health[]): string {
  const { instances } = config
  const lines = urls.map((url, at) => `  ${instances[at]?.instanceId ?? ''}  ${url}`)
  const last = urls.at(-1)?.replace(/^http/, 'ws') ?? ''
  return `
${instances.length > 1 ? `${instances.length} instances of the chat run in this process:` : 'One instance of the chat runs here:'}

${lines.join('\n')}

${howJoined(config, healths.every(({ status }) => status === 'up'))}
Open ${urls.length > 1 ? 'both' : 'it'} in a browser, or talk from a terminal:

  npx wscat -c ${last}/ws/chat/lobby -H 'Authorization: Bearer valid-token'

Tokens: ${[...demoTokens].map(([token, { name }]) => `${token} (${name})`).join(', ')}
Ctrl-C ends it.
`
}

function howJoined ({ redis, instances }: Config, reached: boolean): string {
  if (redis !== undefined) {
    const { host } = new URL(redis)
    return reached
      ? `Joined to all others by the Redis at ${host}.`
      : `The Redis at ${host} does not answer. Until it does, clients hear those on the same instance only.`
  }
  return instances.length > 1
    ? 'They are joined in memory, inside this one process; no Redis is needed. With REDIS_URL set they are joined by Redis.'
    : 'It stands alone. Give it and others REDIS_URL, and they are one cluster.'
}
