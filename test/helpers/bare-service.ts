import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import { Writable } from 'node:stream'
import type { Test } from 'tap'
import { noUnhandled } from './no-unhandled.ts'

// Apart from service.ts, as the example's tests take the plugin from the package: no program may have its types twice.

export interface LogLine { readonly level: number, readonly msg: string, readonly [field: string]: unknown }

export interface ServiceOptions extends FastifyServerOptions {
  /** From which level on lines are logged. @default 'info' */
  readonly level?: string
}

/** An application that a test is about to give its routes. */
export interface Service {
  readonly app: FastifyInstance
  /** What was logged. */
  readonly logs: readonly LogLine[]
  /** Opens a port, a free one unless it is named. The URL has no slash at its end. */
  listen (port?: number): Promise<string>
}

/** The application of a process that ends with it: nobody else closes it. */
export function buildService ({ level = 'info', ...fastify }: ServiceOptions = {}): Service {
  const logs: LogLine[] = []
  const stream = new Writable({
    write (lines: Buffer, _encoding, done) {
      for (const line of lines.toString().trim().split('\n')) logs.push(JSON.parse(line) as LogLine)
      done()
    }
  })
  const app = Fastify({ ...fastify, logger: { level, stream } })
  return { app, logs, listen: async (port = 0) => await app.listen({ port, host: '127.0.0.1' }) }
}

/** The same without the plugin, closed when the test ends; fails the test on unhandled rejections. */
export function bareService (t: Test, fastify?: ServiceOptions): Service {
  noUnhandled(t)
  const service = buildService(fastify)
  t.teardown(async () => await service.app.close())
  return service
}
