// Makes a file of JavaScript of each program that tests start over and over, for one run of the tests: such a process then
// takes half the CPU time to start, as it has one file to load in place of two hundred.
import { build } from 'esbuild'
import { join } from 'node:path'

const programs = ['test/helpers/instance-process.ts', 'test/faults/chaos/instance.ts', 'test/faults/stack/instance.ts']

/** Returns the folder of what it made; test/helpers/child.ts looks there for `<path of the program>.mjs`. */
export async function buildTestPrograms (root) {
  const folder = join(root, '.tap', 'programs')
  await build({
    absWorkingDir: root,
    entryPoints: programs,
    outbase: '.',
    outdir: folder,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    target: 'node20',
    sourcemap: true,
    sourcesContent: false
  })
  return folder
}
