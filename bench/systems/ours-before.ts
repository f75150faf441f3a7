import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { applicationOn, type Package } from './ours-common.ts'
import type { System } from './system.ts'

const { BENCH_BEFORE: checkout } = process.env
if (checkout === undefined) throw new Error('ours-before needs --before <another checkout of this package>')

/** This package as another checkout has it built: for a comparison of two commits in one run. */
export const system: System = {
  name: 'fastify-websocket-groups, before',
  protocol: 'ws',
  path: '/ws/room%u',
  ...applicationOn(await import(pathToFileURL(join(checkout, 'dist', 'esm', 'plugin.js')).href) as Package)
}
