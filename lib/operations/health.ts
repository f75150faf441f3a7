import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { aBoolean, checkOptions, type Rule } from '../options/rules.ts'
import type {} from '../route-types.ts'

export interface GroupsHealthOptions {
  /** Whether the answers say what is wrong. `false` where strangers reach the routes: problems may name hosts. @default true */
  readonly reasons?: boolean | undefined
}

const rules = { reasons: aBoolean } as const satisfies Record<keyof GroupsHealthOptions, Rule>

/** Probes come every few seconds and would fill the log. */
const quiet = { logLevel: 'warn' } as const

async function groupsHealth (app: FastifyInstance, options: GroupsHealthOptions): Promise<void> {
  checkOptions(options, rules, 'groupsHealth.', ['prefix', 'logLevel', 'logSerializers'])
  const { reasons = true } = options
  app.get('/livez', quiet, async (_request, reply) => {
    return await reply.header('cache-control', 'no-store').send({ status: 'live' })
  })
  app.get('/readyz', quiet, async (_request, reply) => {
    const { ready, status, since, problems } = app.registry.health()
    const answer = { ready, status, since: new Date(since).toISOString(), ...(reasons ? { problems } : {}) }
    return await reply.code(ready ? 200 : 503).header('cache-control', 'no-store').send(answer)
  })
}

/** Adds `/livez`, which answers while the process does, and `/readyz`, which answers 503 while new connections are refused. */
export default fp(groupsHealth, {
  fastify: '5.x', name: 'fastify-websocket-groups-health', dependencies: ['fastify-websocket-groups'], encapsulate: true
})
