import type { FastifyPluginAsync } from 'fastify'

/** For whoever watches over this process. Asked every few seconds, so not worth a line in the log. */
export const health: FastifyPluginAsync<{ instanceId: string }> = async (app, { instanceId }) => {
  const quiet = { logLevel: 'warn' } as const

  // Alive, also when Redis is not: a restart would not bring Redis back, and would cut every client off.
  app.get('/healthz', quiet, async () => ({ status: 'ok', instance: instanceId }))

  // Whether to send new clients here. With the default policy that is so without Redis too: those in a room hear those on the same
  // instance.
  app.get('/readyz', quiet, async (request, reply) => {
    const { ready, status, backplane, problems } = app.registry.health()
    reply.code(ready ? 200 : 503)
    return { ready, status, instance: instanceId, backplane, problems }
  })
}
