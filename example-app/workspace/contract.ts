import type { FastifyPluginAsync } from 'fastify'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'

const { resolve } = createRequire(import.meta.url)
const files: ReadonlyArray<readonly [path: string, type: string, file: string]> = [
  ['/asyncapi.js', 'text/javascript', '@asyncapi/web-component/lib/asyncapi-web-component.js'],
  ['/asyncapi.css', 'text/css', '@asyncapi/react-component/styles/default.min.css']
]

// AsyncAPI's component compiles schemas to functions, and adds styles of its own: this page alone allows scripts made of text.
const contentSecurityPolicy =
  "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const html = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Messages of the workspace</title>
<link rel="icon" href="data:,">
<script src="/asyncapi.js" defer></script>
<asyncapi-component schemaUrl="/asyncapi.json" cssImportPath="/asyncapi.css"></asyncapi-component>
</html>
`

/** What clients and this service say to each other: as AsyncAPI at `/asyncapi.json`, and for people at `/messages`. */
export const contract: FastifyPluginAsync = async app => {
  app.get('/asyncapi.json', () => app.asyncapi({
    info: { title: 'Workspace', version: '1.0.0', description: 'Rooms of a team, direct messages, and an assistant.' }
  }))
  app.get('/messages', async (_request, reply) => await reply
    .type('text/html; charset=utf-8')
    .header('content-security-policy', contentSecurityPolicy)
    .send(html))
  for (const [path, type, file] of files) {
    app.get(path, async (_request, reply) => await reply
      .type(`${type}; charset=utf-8`)
      .header('x-content-type-options', 'nosniff')
      .send(await readFile(resolve(file))))
  }
}
