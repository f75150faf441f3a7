import { build } from 'esbuild'
import type { FastifyPluginAsync } from 'fastify'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

// The page consists of its own files alone. 'self' covers the WebSocket to the same host, too.
const contentSecurityPolicy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'none'"

const folder = join(import.meta.dirname, 'page')

/** The page at `/`. Its script is bundled here when the service starts, within some tenths of a second: no build has to run before. */
export const page: FastifyPluginAsync = async app => {
  const files = {
    '/': { type: 'text/html', body: await readFile(join(folder, 'index.html'), 'utf8') },
    '/page.css': { type: 'text/css', body: await readFile(join(folder, 'page.css'), 'utf8') },
    '/page.js': { type: 'text/javascript', body: await bundle() }
  }
  for (const [path, { type, body }] of Object.entries(files)) {
    app.get(path, async (_request, reply) => await reply
      .type(`${type}; charset=utf-8`)
      .header('content-security-policy', contentSecurityPolicy)
      .header('x-content-type-options', 'nosniff')
      .send(body))
  }
}

async function bundle (): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [join(folder, 'main.tsx')],
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    target: 'es2022',
    jsx: 'automatic',
    define: { 'process.env.NODE_ENV': '"production"' }
  })
  return outputFiles[0]?.text ?? ''
}
