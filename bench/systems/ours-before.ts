import { beforePackage } from './before-package.ts'
import { applicationOn } from './ours-common.ts'
import type { System } from './system.ts'

const before = await beforePackage()
if (before === undefined) throw new Error('ours-before needs --before <another checkout of this package>')

/** This package as another checkout has it built: for a comparison of two commits in one run. */
export const system: System = {
  name: 'fastify-websocket-groups, before',
  protocol: 'ws',
  path: '/ws/room%u',
  ...applicationOn(before)
}
