// Bundles the client into single files for pages without a bundler:
//   client.min.js         an ES module, for <script type="module">
//   client.global.min.js  sets the global `websocketGroups`, for a plain <script>
//   messages.min.js       an ES module, with messages by name
//   streams.min.js        an ES module that reads streams of tokens, for a client of one of the files above
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { build } from 'esbuild'

export const clientFiles = ['client.min.js', 'client.global.min.js', 'messages.min.js', 'streams.min.js']

// Names that the files of the client use among themselves, and nobody else: a sixth of the small file is made of them.
const internal = [
  'all', 'answered', 'ask', 'attach', 'broken', 'change', 'changed', 'closed', 'comeBack', 'control', 'dispatch', 'done', 'drop',
  'encoded', 'failed', 'fetch', 'forget', 'hello', 'hidden', 'hide', 'hold', 'joinAgain', 'keepFresh', 'limitMs', 'lost',
  'offer', 'offline', 'post', 'probe', 'promise', 'ready', 'receive', 'received', 'recent', 'refresh', 'release', 'renewable',
  'roster', 'seen', 'sends', 'settle', 'settled', 'take', 'tell', 'times', 'unavailable', 'urls', 'wake', 'welcomed'
]

/** Throws if a name of the list is a property of a public type or of a frame: users and the server see such names, so they must stay. */
function assertInternal (root) {
  for (const file of ['client/types.ts', 'client/messages.ts', 'client/streams.ts', 'client/errors.ts', 'protocol/frames.ts']) {
    const source = readFileSync(join(root, 'lib', file), 'utf8')
    const seen = internal.filter(name => new RegExp(`(^|[{,]) *(readonly |async )?${name}\\??( \\(|<|:)`, 'm').test(source))
    if (seen.length > 0) throw new Error(`scripts/build-client.mjs would rename ${seen.join(', ')}, which lib/${file} shows to others`)
  }
}

/** Hands the table of close codes to esbuild as an enum: esbuild then writes each code where it is used, and drops the table. */
const inlineCloseCodes = {
  name: 'inline-close-codes',
  setup (bundle) {
    bundle.onLoad({ filter: /[\\/]protocol[\\/]close-codes\.ts$/ }, ({ path }) => {
      const source = readFileSync(path, 'utf8')
      const asEnum = (_, table) => `enum CloseCode ${table.replaceAll(':', ' =')}`
      const contents = source.replace(/const CloseCode = (\{[^}]+\}) as const/, asEnum)
      if (contents === source) throw new Error(`${path} has no table that scripts/build-client.mjs could inline`)
      return { contents, loader: 'ts' }
    })
  }
}

export async function buildClient (root, outdir) {
  assertInternal(root)
  const common = {
    bundle: true,
    minify: true,
    target: 'es2022',
    mangleProps: new RegExp(`^(${internal.join('|')})$`),
    plugins: [inlineCloseCodes],
    logLevel: 'warning',
    legalComments: 'none'
  }
  const [plain, messages, streams] = ['index.ts', 'messages.ts', 'streams.ts'].map(file => [join(root, 'lib', 'client', file)])
  const [esm, global, withMessages, onlyStreams] = clientFiles.map(file => join(outdir, file))
  await Promise.all([
    build({ ...common, entryPoints: plain, format: 'esm', outfile: esm }),
    build({ ...common, entryPoints: plain, format: 'iife', globalName: 'websocketGroups', outfile: global }),
    build({ ...common, entryPoints: messages, format: 'esm', outfile: withMessages }),
    build({ ...common, entryPoints: streams, format: 'esm', outfile: onlyStreams })
  ])
}
