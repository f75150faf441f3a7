import { mkdirSync, mkdtempSync, readFileSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import ts from 'typescript'

/**
 * How a snippet is to be read. An HTML comment on the line before its fence says so:
 * - none: a module that compiles by itself
 * - `<!-- snippet: run -->`: the same, and it is a program that runs to its end; `serve` is a program that goes on
 * - `<!-- snippet: alone -->`: compiled without the others, as it changes the types of all
 * - `<!-- snippet: in a service -->`: uses names that the surroundings of that name declare, see below
 */
type Kind = 'module' | 'run' | 'serve' | 'alone' | `in ${string}`

export interface Snippet {
  /** Of the page, from the root of the repository. */
  readonly page: string
  /** Of its first line of code, from 1. */
  readonly line: number
  readonly kind: Kind
  readonly code: string
}

/** What a fragment may take for granted. Stands behind the fragment, so that lines keep their numbers. */
const surroundings: Readonly<Record<string, string>> = {
  'a service': `
    import type { FastifyInstance } from 'fastify'
    import type { Data } from 'fastify-websocket-groups'
    declare const app: FastifyInstance
    declare const message: Data, cursor: Data, tick: Data
    declare const pointSchema: import('fastify-websocket-groups').StandardSchema<{ readonly x: number }>
    declare function assertOpen (group: string): Promise<void>
    declare function model (prompt: string, options: { readonly signal: AbortSignal }): AsyncIterable<string>`,
  'a service with a backplane': `
    declare const app: import('fastify').FastifyInstance
    declare const MyBackplane: new (url: string) => import('fastify-websocket-groups').Backplane`,
  'a test of a backplane': `
    declare const MyBackplane: new (url: string) => import('fastify-websocket-groups').Backplane
    declare function startMyServer (): Promise<{ readonly url: string, stop (): Promise<void> }>`,
  'a test': `
    import assert from 'node:assert'
    import { mock } from 'node:test'
    import { testCluster } from 'fastify-websocket-groups/testing'
    import type { FastifyInstance } from 'fastify'
    declare function buildApp (options: import('fastify-websocket-groups').WebsocketGroupsOptions): Promise<FastifyInstance>
    declare const t: import('tap').Test
    declare function describe (name: string, run: () => void): void
    declare function it (name: string, run: () => Promise<void>): void
    declare function expect (value: unknown): { toBe (expected: unknown): void }`,
  'a page': `
    declare const token: string
    declare function getToken (): Promise<string>
    declare function show (data: string | Uint8Array): void
    declare function reload (reason: string): void
    declare function badge (state: string): void`,
  'a page with messages': `
    declare const getToken: () => Promise<string>
    declare function show (data: string): void
    declare function badge (state: string): void`
}

const fence = /^```(ts|typescript|js|javascript)\n(.*?)^```$/gms
const marker = /<!-- snippet: (.*) -->\n$/

export function snippetsOf (page: string, text: string): Snippet[] {
  return [...text.matchAll(fence)].map(({ index, 2: code = '' }) => {
    const before = text.slice(0, index)
    return { page, line: before.split('\n').length + 1, kind: (marker.exec(before)?.[1] ?? 'module') as Kind, code }
  })
}

export const isProgram = ({ kind }: Snippet): boolean => kind === 'run' || kind === 'serve'

export const nameOf = ({ page, line }: Snippet): string => `${page}:${line}`

/** What the pages of a service import of it. */
const server = `
  import type { HasContract } from 'fastify-websocket-groups'
  export type Chat = HasContract<{
    messages: { say: { data: { text: string }, reply: { position: string } } }
    events: { said: { text: string, from: string } }
    questions: {}
  }>`

const root = join(import.meta.dirname, '..', '..')

/** A project that has the package installed, with Fastify and the types of Node beside it. */
export function project (): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'snippets-')))
  const packages = [
    'fastify', 'fastify-metrics', 'prom-client', 'close-with-grace', 'tap', '@fastify/type-provider-typebox', 'typebox', 'react'
  ]
  const links = {
    'fastify-websocket-groups': root,
    ...Object.fromEntries(packages.map(name => [name, join(root, 'node_modules', name)])),
    ...Object.fromEntries(['node', 'react'].map(name => [`@types/${name}`, join(root, 'node_modules', '@types', name)]))
  }
  for (const [name, target] of Object.entries(links)) {
    const link = join(folder, 'node_modules', name)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(target, link, 'dir')
  }
  writeFileSync(join(folder, 'package.json'), '{ "type": "module", "private": true }')
  writeFileSync(join(folder, 'server.ts'), server)
  return folder
}

const options: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts', 'lib.dom.d.ts'],
  types: ['node'],
  strict: true,
  noEmit: true,
  skipLibCheck: true
}

// Each file is parsed once: the types of Node, of Fastify and of this package are most of the work.
const parsed = new Map<string, ts.SourceFile | undefined>()
const host = ts.createCompilerHost(options)
const parse = host.getSourceFile.bind(host)
host.getSourceFile = (name, ...rest) => {
  if (!parsed.has(name)) parsed.set(name, parse(name, ...rest))
  return parsed.get(name)
}

let written = 0

/** What the compiler says to the snippets, each line with its page and line; strict, with and without exact optional properties. */
export function complaints (snippets: readonly Snippet[], folder: string): string[] {
  const problems: string[] = []
  const files = new Map<string, Snippet>()
  snippets.forEach(snippet => {
    const around = snippet.kind.startsWith('in ') ? surroundings[snippet.kind.slice(3)] : ''
    if (around === undefined || !/^(module|run|serve|alone|in .*)$/.test(snippet.kind)) {
      problems.push(`${nameOf(snippet)}: there is no kind of snippet called '${snippet.kind}'`)
      return
    }
    const file = join(folder, `snippet-${written++}.ts`)
    writeFileSync(file, `${snippet.code}${around}\nexport {}`)
    files.set(file, snippet)
  })

  const check = (names: readonly string[], exactOptionalPropertyTypes: boolean): void => {
    const program = ts.createProgram(names, { ...options, exactOptionalPropertyTypes }, host)
    for (const [name, { page, line }] of [...files].filter(([name]) => names.includes(name))) {
      const source = program.getSourceFile(name)
      for (const { start = 0, messageText } of [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)]) {
        const at = source?.getLineAndCharacterOfPosition(start).line ?? 0
        problems.push(`${page}:${line + at}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`)
      }
    }
  }
  const together = [...files].filter(([, { kind }]) => kind !== 'alone').map(([name]) => name)
  check(together, false)
  check(together, true)
  for (const [name, { kind }] of files) if (kind === 'alone') check([name], true)
  return [...new Set(problems)]
}

type Entry = string | { readonly types?: string, readonly import?: { readonly types: string } }

/** The declarations of all that the package exports. */
export function publicDeclarations (): string[] {
  const { exports } = JSON.parse(readPage('package.json')) as { exports: Readonly<Record<string, Entry>> }
  return Object.values(exports).flatMap(entry => typeof entry === 'string' ? [] : entry.import?.types ?? entry.types ?? [])
    .map(file => join(root, file))
}

/** Optional properties, in these declarations and in all that they import of the package, that do not say `| undefined`. */
export function optionalWithoutUndefined (files: readonly string[]): string[] {
  const program = ts.createProgram(files, { ...options, exactOptionalPropertyTypes: true }, host)
  const checker = program.getTypeChecker()
  const found: string[] = []
  const look = (node: ts.Node): void => {
    if ((ts.isPropertySignature(node) || ts.isPropertyDeclaration(node)) && node.questionToken !== undefined && node.type !== undefined) {
      const type = checker.getTypeFromTypeNode(node.type)
      const source = node.getSourceFile()
      const line = source.getLineAndCharacterOfPosition(node.getStart()).line + 1
      if (!checker.isTypeAssignableTo(checker.getUndefinedType(), type)) found.push(`${source.fileName}:${line}: ${node.name.getText()}`)
    }
    ts.forEachChild(node, look)
  }
  for (const source of program.getSourceFiles()) if (!source.fileName.includes('/node_modules/')) look(source)
  return found
}

/** Writes a program as JavaScript into the project; returns its file. */
export function writeProgram ({ page, line, code }: Snippet, folder: string): string {
  const file = join(folder, `program-${page.replaceAll(/\W/g, '-')}-${line}.js`)
  writeFileSync(file, ts.transpileModule(code, { compilerOptions: { target: options.target, module: ts.ModuleKind.ESNext } }).outputText)
  return file
}

export const readPage = (page: string): string => readFileSync(join(root, page), 'utf8')
