import type { FastifyPluginAsync } from 'fastify'

/** Answers probes of whatever watches this process. Probes come every few seconds, so they are not logged. */
export const health: FastifyPluginAsync<{ instanceId: string }> = async (app, { instanceId }) => {
  const quiet = { logLevel: 'warn' } as const

  // Alive, also when Redis is not: a restart would not bring Redis back, and would cut every client off.
  app.get('/healthz', quiet, async () => ({ status: 'ok', instance: instanceId }))

  // Ready for new clients. With the default policy an instance is ready without Redis, too: members of a room hear those on the same
  // instance.
  app.get('/readyz', quiet, async (request, reply) => {
    const { ready, status, backplane, problems } = app.registry.health()
    reply.code(ready ? 200 : 503)
    return { ready, status, instance: instanceId, backplane, problems }
  })
}
