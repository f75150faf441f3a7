import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The last commit of version 0.1.0. */
const commit = 'b222e70'
const root = fileURLToPath(new URL('../..', import.meta.url))

/**
 * The source of version 0.1.0, taken from the history of this repository. `undefined` where there is no history, as in a shallow clone: a
 * test that needs it says so and is skipped.
 */
export function sourceOfVersion01 (): string | undefined {
  const folder = join(root, '.versions', commit)
  if (existsSync(folder)) return folder
  const git = (...args: string[]): Buffer => execFileSync(
    'git', args, { cwd: root, stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 2 ** 28 }
  )
  try {
    git('cat-file', '-e', `${commit}^{commit}`)
  } catch {
    return undefined
  }
  mkdirSync(join(root, '.versions'), { recursive: true })
  // Renamed into place, as another test may do the same at the same time.
  const unfinished = mkdtempSync(join(root, '.versions', 'unfinished-'))
  const archive = git('archive', commit, 'package.json', 'plugin.ts', 'lib', 'test/helpers')
  execFileSync('tar', ['-x', '-C', unfinished], { input: archive })
  try {
    renameSync(unfinished, folder)
  } catch (error) {
    rmSync(unfinished, { recursive: true })
    if (!existsSync(folder)) throw error
  }
  return folder
}
