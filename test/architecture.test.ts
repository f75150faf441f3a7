import t from 'tap'
import { readdirSync, readFileSync } from 'node:fs'
import { posix, join } from 'node:path'
import ts from 'typescript'

// A file imports from its own layer and from those below it, in types too: what a type names is a dependency.
const LAYERS: ReadonlyArray<readonly string[]> = [
  [
    'lib/types.ts', 'lib/types/', 'lib/route-types.ts',
    'lib/errors.ts', 'lib/ids.ts', 'lib/logging.ts', 'lib/metrics.ts', 'lib/deadline.ts', 'lib/bounded-map.ts', 'lib/kept-bytes.ts',
    'lib/fastify-internals.ts', 'lib/thrown.ts', 'lib/version.ts',
    'lib/metrics/', 'lib/protocol/'
  ],
  [
    'lib/group-name.ts', 'lib/backplane/user-log.ts', 'lib/backplane/messages.ts', 'lib/backplane/streams.ts', 'lib/backplane/backplane.ts',
    'lib/backplane/position.ts'
  ],
  ['lib/options/'],
  ['lib/backplane/memory/', 'lib/backplane/redis/', 'lib/backplane/own.ts'],
  ['lib/connection/'],
  ['lib/hub/'],
  ['lib/delivery/'],
  ['lib/presence/'],
  ['lib/streams/'],
  ['lib/groups/'],
  ['lib/registry.ts'],
  ['lib/instance.ts'],
  ['lib/messages/'],
  ['lib/http/'],
  ['plugin.ts'],
  ['lib/operations/'],
  ['lib/client/'],
  ['lib/cli/'],
  ['lib/testing/']
]

/** Inside `lib/backplane/redis/`: as the layers, but the rooms of one row know nothing of each other. */
const REDIS_ROOMS: ReadonlyArray<readonly string[]> = [
  ['bytes-reader.ts', 'envelope-extensions.ts'],
  ['envelope.ts', 'keys.ts', 'batching.ts', 'hash-tags.ts', 'stats.ts', 'problems.ts', 'state-report.ts', 'deployment.ts', 'decision.ts'],
  ['link/'],
  ['membership/', 'log/', 'streams/', 'publish.ts', 'claim.ts', 'parts.ts'],
  ['writer.ts', 'inbox.ts', 'cluster-way.ts', 'partition-instance.ts', 'partition-options.ts'],
  ['cluster-writer.ts', 'partition.ts'],
  ['cluster-occupancy.ts', 'cluster-reaper.ts'],
  ['standalone-writer.ts', 'single.ts', 'router.ts'],
  ['index.ts']
]

/** Browsers load the client and what it imports, and nothing else of the plugin. */
const CLIENT = { folder: 'lib/client/', mayImport: ['lib/client/', 'lib/protocol/'] }

const TYPES = ['lib/types.ts', 'lib/route-types.ts', 'lib/options/types.ts']

/** Packages that only some files may import; the public types may name the types of both. */
const RESERVED: Record<string, (file: string, typeOnly: boolean) => boolean> = {
  ioredis: (file, typeOnly) => file.startsWith('lib/backplane/redis/link/') || (TYPES.includes(file) && typeOnly),
  '@opentelemetry/api': file => file === 'lib/operations/opentelemetry.ts',
  '@fastify/websocket': (file, typeOnly) => file === 'plugin.ts' || file.startsWith('lib/http/') || (TYPES.includes(file) && typeOnly)
}

const MAX_LINES = 280

type Sources = ReadonlyMap<string, string>
interface Import { readonly from: string, readonly typeOnly: boolean }

function imports (file: string, text: string): Import[] {
  const found: Import[] = []
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) && ts.isStringLiteral(node.moduleSpecifier)) {
      const clause = node.importClause
      const named = clause?.namedBindings && ts.isNamedImports(clause.namedBindings) ? clause.namedBindings.elements : undefined
      const typeOnly = clause !== undefined &&
        (clause.phaseModifier === ts.SyntaxKind.TypeKeyword ||
          (!clause.name && named !== undefined && named.every(element => element.isTypeOnly)))
      found.push({ from: node.moduleSpecifier.text, typeOnly })
    } else if (ts.isExportDeclaration(node) && node.moduleSpecifier && ts.isStringLiteral(node.moduleSpecifier)) {
      found.push({ from: node.moduleSpecifier.text, typeOnly: node.isTypeOnly })
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument) && ts.isStringLiteral(node.argument.literal)) {
      found.push({ from: node.argument.literal.text, typeOnly: true })
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [argument] = node.arguments
      found.push({ from: argument && ts.isStringLiteral(argument) ? argument.text : '(computed)', typeOnly: false })
    }
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile(file, text, ts.ScriptTarget.Latest))
  return found
}

function layerOf (file: string): number {
  return LAYERS.findIndex(entries => entries.some(entry => entry.endsWith('/') ? file.startsWith(entry) : file === entry))
}

const resolve = (file: string, { from }: Import): string => posix.join(posix.dirname(file), from)

function layering (sources: Sources): string[] {
  const problems: string[] = []
  for (const [file, text] of sources) {
    const own = layerOf(file)
    if (own === -1) {
      problems.push(`${file}: add it to the table of layers`)
      continue
    }
    for (const one of imports(file, text).filter(one => one.from.startsWith('.'))) {
      const target = resolve(file, one)
      if (file.startsWith(CLIENT.folder) && !CLIENT.mayImport.some(folder => target.startsWith(folder))) {
        problems.push(`${file} imports ${target}, which browsers do not load`)
      } else if (!sources.has(target)) problems.push(`${file} imports ${target}, which is not a source of the plugin`)
      else if (layerOf(target) > own) problems.push(`${file} (layer ${own}) imports ${target} (layer ${layerOf(target)})`)
    }
  }
  return problems
}

function redisRooms (sources: Sources): string[] {
  const folder = 'lib/backplane/redis/'
  const roomOf = (file: string): { readonly row: number, readonly room: string } => {
    const name = file.slice(folder.length)
    const row = REDIS_ROOMS.findIndex(rooms => rooms.some(room => name.startsWith(room)))
    return { row, room: REDIS_ROOMS[row]?.find(room => name.startsWith(room)) ?? '' }
  }
  const problems: string[] = []
  for (const [file, text] of sources) {
    if (!file.startsWith(folder)) continue
    const own = roomOf(file)
    if (own.row === -1) problems.push(`${file}: add it to the table of rooms`)
    for (const target of imports(file, text).map(one => resolve(file, one)).filter(target => target.startsWith(folder))) {
      const other = roomOf(target)
      if (other.row > own.row || (other.row === own.row && other.room !== own.room)) problems.push(`${file} imports ${target}`)
    }
  }
  return problems
}

function cycles (sources: Sources): string[] {
  const problems = new Set<string>()
  const done = new Set<string>()
  const walk = (file: string, path: readonly string[]): void => {
    const start = path.indexOf(file)
    if (start !== -1) problems.add([...path.slice(start), file].join(' -> '))
    if (start !== -1 || done.has(file)) return
    for (const one of imports(file, sources.get(file) ?? '')) if (one.from.startsWith('.')) walk(resolve(file, one), [...path, file])
    done.add(file)
  }
  for (const file of sources.keys()) walk(file, [])
  return [...problems]
}

interface Manifest { readonly dependencies: Record<string, string>, readonly peerDependencies: Record<string, string> }

function packages (sources: Sources, { dependencies, peerDependencies }: Manifest): string[] {
  const declared = { ...dependencies, ...peerDependencies }
  const problems: string[] = []
  for (const [file, text] of sources) {
    for (const { from, typeOnly } of imports(file, text)) {
      if (from.startsWith('.') || from.startsWith('node:')) continue
      const name = from.split('/').slice(0, from.startsWith('@') ? 2 : 1).join('/')
      const typesName = `@types/${name.replace(/^@(.*)\//, '$1__')}`
      if (!(name in declared) && !(typeOnly && typesName in declared)) problems.push(`${file} imports ${name}, which is no dependency`)
      if (RESERVED[name]?.(file, typeOnly) === false) problems.push(`${file} may not import ${name}`)
    }
  }
  return problems
}

function sizes (sources: Sources): string[] {
  return [...sources]
    .map(([file, text]) => [file, text.trimEnd().split('\n').length] as const)
    .filter(([, lines]) => lines > MAX_LINES)
    .map(([file, lines]) => `${file} has ${lines} lines, more than ${MAX_LINES}`)
}

const root = join(import.meta.dirname, '..')
const read = (file: string): string => readFileSync(join(root, file), 'utf8')
const library = readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' })
  .map(name => posix.join('lib', name.replaceAll('\\', '/'))).filter(name => /\.[cm]?[jt]s$/.test(name))
const plugin: Sources = new Map(['plugin.ts', ...library.sort()].map(file => [file, read(file)]))

t.test('a lower layer never imports a higher one, and every file has a layer', async (t) => {
  t.strictSame(layering(plugin), [])
})

t.test('the rooms of the Redis backplane build on each other in one direction', async (t) => {
  t.strictSame(redisRooms(plugin), [])
  const bad = new Map([
    ['lib/backplane/redis/link/link.ts', "import '../log/page.ts'"],
    ['lib/backplane/redis/log/page.ts', "import './scripts.ts'\nimport '../membership/store.ts'\nimport '../link/link.ts'"],
    ['lib/backplane/redis/new.ts', '']
  ])
  t.strictSame(redisRooms(bad), [
    'lib/backplane/redis/link/link.ts imports lib/backplane/redis/log/page.ts',
    'lib/backplane/redis/log/page.ts imports lib/backplane/redis/membership/store.ts',
    'lib/backplane/redis/new.ts: add it to the table of rooms'
  ])
})

t.test('imports make no cycles', async (t) => {
  t.strictSame(cycles(plugin), [])
})

t.test('only link/ imports ioredis, only plugin.ts and http/ import @fastify/websocket, and nothing undeclared is imported', async (t) => {
  t.strictSame(packages(plugin, JSON.parse(read('package.json')) as Manifest), [])
})

t.test(`no file has more than ${MAX_LINES} lines`, async (t) => {
  t.strictSame(sizes(plugin), [])
})

function sourcesIn (folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).filter(({ name }) => name !== 'node_modules').flatMap(entry => {
    const path = posix.join(folder, entry.name)
    return entry.isDirectory() ? sourcesIn(path) : /\.tsx?$/.test(path) ? [path] : []
  })
}
const bench: Sources = new Map(sourcesIn('bench').map(file => [file, read(file)]))

t.test('the bench has no cycles, its rig knows no scenario, and it uses the package by its name', async (t) => {
  t.ok(bench.size > 40, 'it finds the sources')
  t.strictSame(cycles(bench), [])
  for (const [file, text] of bench) {
    const targets = imports(file, text).filter(({ from }) => from.startsWith('.')).map(one => resolve(file, one))
    t.strictSame(targets.filter(target => /^(lib\/|plugin\.ts)/.test(target)), [], file)
    if (file.startsWith('bench/rig/')) {
      t.strictSame(targets.filter(target => !/^(bench\/(rig|systems)|test|scripts)\//.test(target)), [], file)
    }
  }
})

/** What the package exports, and what is loaded by a name that is made at run time. */
const { exports: entries } = JSON.parse(read('package.json')) as { readonly exports: object }
const published = [...JSON.stringify(entries).matchAll(/"\.\/dist\/esm\/([^"]*?)\.js"/g)].map(([, file]) => `${file}.ts`)
const isLoadedByName = (file: string): boolean => file.startsWith('bench/systems/')

/** Exports that nobody imports. Whoever takes all that a file exports, as `export *` does, counts as importing each. */
function deadExports (sources: Sources): string[] {
  const taken = new Set(published.map(file => `${file} *`))
  const exported: Array<readonly [file: string, name: string]> = []
  for (const [file, text] of sources) {
    const take = (from: ts.Expression | undefined, names: readonly string[]): void => {
      if (from === undefined || !ts.isStringLiteral(from)) return
      for (const name of names) taken.add(`${posix.join(posix.dirname(file), from.text)} ${name}`)
    }
    const visit = (node: ts.Node): void => {
      if (ts.isImportDeclaration(node)) {
        const { name, namedBindings: bindings } = node.importClause ?? {}
        if (name !== undefined) take(node.moduleSpecifier, ['default'])
        if (bindings !== undefined) take(node.moduleSpecifier, ts.isNamedImports(bindings) ? bindings.elements.map(originalName) : ['*'])
      } else if (ts.isExportDeclaration(node)) {
        const { exportClause: clause } = node
        const elements = clause !== undefined && ts.isNamedExports(clause) ? clause.elements : undefined
        take(node.moduleSpecifier, elements?.map(originalName) ?? ['*'])
        for (const { name } of elements ?? []) exported.push([file, name.text])
      } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
        take(node.arguments[0], ['*'])
      } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
        take(node.argument.literal as ts.StringLiteral, ['*'])
      } else if (ts.canHaveModifiers(node) && ts.getModifiers(node)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) === true) {
        for (const name of declaredNames(node)) exported.push([file, name])
      }
      ts.forEachChild(node, visit)
    }
    visit(ts.createSourceFile(file, text, ts.ScriptTarget.Latest))
  }
  return exported.filter(([file, name]) => !taken.has(`${file} ${name}`) && !taken.has(`${file} *`) && !isLoadedByName(file))
    .map(([file, name]) => `${file} exports ${name}, which nobody imports`)
}

function originalName ({ propertyName, name }: ts.ImportSpecifier | ts.ExportSpecifier): string {
  return (propertyName ?? name).text
}

function declaredNames (node: ts.Node): string[] {
  if (ts.isVariableStatement(node)) return node.declarationList.declarations.flatMap(({ name }) => namesIn(name))
  const { name } = node as { readonly name?: ts.Identifier }
  return name === undefined ? [] : [name.text]
}

function namesIn (name: ts.BindingName): string[] {
  if (ts.isIdentifier(name)) return [name.text]
  return name.elements.flatMap(element => ts.isBindingElement(element) ? namesIn(element.name) : [])
}

t.test('nothing is exported that nobody imports', async (t) => {
  const everything: Sources = new Map([
    ...plugin, ...['test', 'bench', 'example-app'].flatMap(sourcesIn).map(file => [file, read(file)] as const)
  ])
  t.strictSame(deadExports(everything), [])
  const bad = new Map([
    ['lib/a.ts', "import { b as mine } from './b.ts'\nexport const [dead, { alive }] = mine"],
    ['lib/b.ts', "import { alive } from './a.ts'\nexport const b = alive\nexport interface Dead {}\nexport * from './c.ts'"],
    ['lib/c.ts', 'export class C {}'],
    ['plugin.ts', 'export const published = 1']
  ])
  t.strictSame(deadExports(bad), ['lib/a.ts exports dead, which nobody imports', 'lib/b.ts exports Dead, which nobody imports'])
})

t.test('the checks above find what they look for', async (t) => {
  const hub = "export * from '../types.ts'\nimport 'ws'\nexport type A = import('@fastify/websocket').Foo\n" + '\n'.repeat(300) +
    'void import("../../test/x.ts")'
  const bad = new Map([
    [
      'lib/types.ts',
      "import type { Hub } from './hub/hub.ts'\nimport { Redis, type RedisOptions } from 'ioredis'\nimport type { WebSocket } from 'ws'"
    ],
    ['lib/hub/hub.ts', hub],
    ['lib/connection/connection.ts', "import type { LocalMember } from '../hub/hub.ts'"],
    ['lib/backplane/redis/partition.ts', "import { Command } from 'ioredis'"],
    ['lib/backplane/redis/link/link.ts', "import { Redis } from 'ioredis'"],
    ['lib/options/types.ts', "import type { Redis } from 'ioredis'"],
    ['lib/client/client.ts', "import type { Json } from '../types.ts'"],
    ['lib/unheard-of.ts', '']
  ])
  t.strictSame(layering(bad), [
    'lib/types.ts (layer 0) imports lib/hub/hub.ts (layer 5)',
    'lib/hub/hub.ts imports test/x.ts, which is not a source of the plugin',
    'lib/connection/connection.ts (layer 4) imports lib/hub/hub.ts (layer 5)',
    'lib/client/client.ts imports lib/types.ts, which browsers do not load',
    'lib/unheard-of.ts: add it to the table of layers'
  ])
  t.strictSame(cycles(bad), ['lib/types.ts -> lib/hub/hub.ts -> lib/types.ts'])
  t.strictSame(packages(bad, { dependencies: { ioredis: '6', '@fastify/websocket': '11', '@types/ws': '8' }, peerDependencies: {} }), [
    'lib/types.ts may not import ioredis',
    'lib/hub/hub.ts imports ws, which is no dependency',
    'lib/hub/hub.ts may not import @fastify/websocket',
    'lib/backplane/redis/partition.ts may not import ioredis'
  ])
  t.strictSame(sizes(bad), [`lib/hub/hub.ts has 304 lines, more than ${MAX_LINES}`])
})
