import type { Test } from 'tap'
import { memoryCluster } from 'fastify-websocket-groups'
import type { FastifyInstance } from 'fastify'
import { buildApp } from '../../example-app/app.ts'

interface Instance {
  readonly app: FastifyInstance
  /** `http://127.0.0.1:<port>` */
  readonly url: string
}

/** Instances of the example, on ports of their own, joined in memory. */
export async function startInstances <const Names extends readonly string[]> (
  t: Test, ...names: Names
): Promise<{ [Key in keyof Names]: Instance }>
export async function startInstances (t: Test, ...names: string[]): Promise<Instance[]> {
  const cluster = memoryCluster()
  return await Promise.all(names.map(async instanceId => {
    const app = buildApp({ instanceId, backplane: cluster.backplane(), logLevel: 'silent' })
    t.teardown(async () => await app.close())
    return { app, url: await app.listen({ port: 0, host: '127.0.0.1' }) }
  }))
}

export const bearer = (token: string): { authorization: string } => ({ authorization: `Bearer ${token}` })

export async function getJson (
  url: string, headers: Record<string, string> = {}
): Promise<{ readonly status: number, readonly body: unknown }> {
  const response = await fetch(url, { headers })
  return { status: response.status, body: await response.json() }
}

export async function postJson (
  url: string, body: unknown, headers: Record<string, string> = {}
): Promise<{ readonly status: number, readonly body: unknown }> {
  const response = await fetch(
    url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) }
  )
  return { status: response.status, body: await response.json() }
}
