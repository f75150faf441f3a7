import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import { Writable } from 'node:stream'
import type { Test } from 'tap'
import websocketGroups, { type WebsocketGroupsOptions } from '../../plugin.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'

export interface LogLine { readonly level: number, readonly msg: string, readonly [field: string]: unknown }

export interface Service {
  readonly app: FastifyInstance
  /** What was logged, from level info on. */
  readonly logs: readonly LogLine[]
  /** Opens the port; the URL has no slash at its end. */
  listen (): Promise<string>
}

/** A service with the plugin on the in-memory backplane, closed when the test ends; fails the test on unhandled rejections. */
export async function service (t: Test, options: WebsocketGroupsOptions = {}, fastify: FastifyServerOptions = {}): Promise<Service> {
  const bare = bareService(t, fastify)
  await bare.app.register(websocketGroups, options)
  return bare
}

export function bareService (t: Test, options: FastifyServerOptions = {}): Service {
  noUnhandled(t)
  const logs: LogLine[] = []
  const stream = new Writable({
    write (line: Buffer, _encoding, done) {
      logs.push(JSON.parse(line.toString()) as LogLine)
      done()
    }
  })
  const app = Fastify({ ...options, logger: { level: 'info', stream } })
  t.teardown(async () => await app.close())
  return { app, logs, listen: async () => await app.listen({ port: 0, host: '127.0.0.1' }) }
}

/** A promise that the test settles. */
export function gate (): { readonly opened: Promise<void>, open (): void } {
  let open = (): void => {}
  const opened = new Promise<void>(resolve => { open = resolve })
  return { opened, open }
}
