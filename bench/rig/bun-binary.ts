import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { spawnSync } from 'node:child_process'

let found: string | undefined

/** Path of the Bun that the npm package brings. */
export function bunBinary (): string {
  if (found !== undefined) return found
  const manifest = createRequire(import.meta.url).resolve('bun/package.json')
  const { bin } = createRequire(import.meta.url)(manifest) as { bin: { bun: string } }
  const path = join(dirname(manifest), bin.bun)
  // Before its install script ran there is a placeholder.
  if (spawnSync(path, ['--version']).status !== 0) {
    throw new Error('Bun does not run here: try `npm rebuild bun`, or leave it out with --systems')
  }
  found = path
  return path
}
