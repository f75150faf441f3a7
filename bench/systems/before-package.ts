import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type * as WebsocketGroups from 'fastify-websocket-groups'

export type Package = typeof WebsocketGroups

/** This package as the checkout of `--before` has it built; `undefined` without one. */
export async function beforePackage (): Promise<Package | undefined> {
  const { BENCH_BEFORE: checkout } = process.env
  if (checkout === undefined) return undefined
  return await import(pathToFileURL(join(checkout, 'dist', 'esm', 'plugin.js')).href) as Package
}
