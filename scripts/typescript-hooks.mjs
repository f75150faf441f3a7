// The hook behind typescript.mjs. Node 20 runs this file in a thread of its own, so it imports as little as possible.
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const cache = join(root, 'node_modules', '.cache', 'fastify-websocket-groups', 'typescript')
const options = {
  loader: 'ts',
  format: 'esm',
  target: 'node20',
  sourcemap: 'inline',
  sourcesContent: false,
  tsconfigRaw: { compilerOptions: { verbatimModuleSyntax: true } }
}

/**
 * JavaScript for a TypeScript file: from the cache, where its name is the hash of the file's path and text, or made by esbuild and put
 * there.
 */
function transpile (file) {
  const text = readFileSync(file)
  const cached = join(cache, `${createHash('sha256').update(`${JSON.stringify(options)}\0${file}\0`).update(text).digest('hex')}.js`)
  try {
    return readFileSync(cached, 'utf8')
  } catch {
    const { transformSync } = createRequire(import.meta.url)('esbuild')
    const { code } = transformSync(text.toString(), { ...options, sourcefile: file })
    mkdirSync(cache, { recursive: true })
    // Renamed into place: another process never reads half a file.
    const unfinished = `${cached}.${process.pid}`
    writeFileSync(unfinished, code)
    renameSync(unfinished, cached)
    return code
  }
}

export function load (url, context, nextLoad) {
  const path = url.startsWith('file:') ? fileURLToPath(url) : ''
  if (!path.endsWith('.ts') || path.includes('node_modules')) return nextLoad(url, context)
  return { format: 'module', source: transpile(path), shortCircuit: true }
}
