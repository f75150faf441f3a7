import t from 'tap'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join, posix } from 'node:path'
import { errorCodes } from '../../lib/errors.ts'
import { resolveOptions } from '../../lib/options/resolve.ts'
import { CloseCode } from '../../lib/protocol/close-codes.ts'

const root = join(import.meta.dirname, '..', '..')
const read = (page: string): string => readFileSync(join(root, page), 'utf8')
const pages = [...readdirSync(root), ...readdirSync(join(root, 'docs')).map(name => `docs/${name}`)].filter(name => name.endsWith('.md'))
const everyPage = [...pages, 'bench/README.md', 'example-app/README.md', 'example-app/workspace/README.md']

const withoutFences = (text: string): string => text.replace(/^```.*?^```$/gms, fence => fence.replace(/[^\n]/g, ''))

/** The names under which GitHub reaches the headings of a page. */
function anchors (text: string): Set<string> {
  return new Set([...withoutFences(text).matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
    heading.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, '').replace(/\s/g, '-')))
}

function deadLinks (page: string, text: string): string[] {
  return [...withoutFences(text).matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = '']) => link).filter(link => {
    if (/^[a-z]+:/.test(link)) return false
    const [path = '', anchor] = link.split('#')
    const target = path === '' ? page : posix.join(posix.dirname(page), path)
    if (!existsSync(join(root, target))) return true
    return anchor !== undefined && !anchors(read(target)).has(anchor)
  }).map(link => `${page}: ${link}`)
}

function missingFiles (page: string, text: string): string[] {
  const named = [...text.matchAll(/(?<![\w./-])(?:(?:lib|test|docs|scripts|bench|example-app)\/[\w./-]*|plugin\.ts)/g)].map(
    ([path]) => path.replace(/\.$/, '')
  )
  return [...new Set(named)].filter(path => !existsSync(join(root, path))).map(path => `${page}: ${path}`)
}

t.test('links lead somewhere', async (t) => {
  t.strictSame(everyPage.flatMap(page => deadLinks(page, read(page))), [])
})

t.test('every page of docs/ is two clicks from the README at most', async (t) => {
  const linksOf = (page: string): string[] => [...withoutFences(read(page)).matchAll(/\]\(([^)\s#]+\.md)[^)]*\)/g)]
    .map(([, path = '']) => posix.join(posix.dirname(page), path)).filter(path => existsSync(join(root, path)))
  const first = linksOf('README.md')
  const reached = new Set([...first, ...first.flatMap(linksOf)])
  t.strictSame(pages.filter(page => page.startsWith('docs/') && !reached.has(page)), [])
})

t.test('every file that a page names is there', async (t) => {
  t.strictSame(pages.flatMap(page => missingFiles(page, read(page))), [])
})

t.test('ARCHITECTURE.md shows the layers that the test of imports enforces', async (t) => {
  const [, table = ''] = /const LAYERS[^=]*= \[\n(.*?)^\]/ms.exec(read('test/architecture.test.ts')) ?? []
  const enforced = [...table.matchAll(/^ *\[(.*?)\]/gms)].map(([, row = '']) => [...row.matchAll(/'([^']+)'/g)].map(([, entry]) => entry))
  const shown = [...read('ARCHITECTURE.md').matchAll(/^\| \d+ \| (.*?) \|/gm)].map(
    ([, row = '']) => [...row.matchAll(/`([^`]+)`/g)].map(([, entry]) => entry)
  )
  t.ok(enforced.length > 5, 'found the table')
  t.strictSame(shown, enforced)
})

t.test('docs/reference.md lists every option, every error code with its status, and every close code', async (t) => {
  const reference = read('docs/reference.md')
  const section = (title: string): string => new RegExp(`^## ${title}\n(.*?)(?=^## |$(?![^]))`, 'ms').exec(reference)?.[1] ?? ''
  const cells = (text: string): string[] => [...text.matchAll(/^\| ([^|]*) \|/gm)].map(([, cell = '']) => cell)

  const options = cells(section('Options')).flatMap(cell => [...cell.matchAll(/`(\w+)`/g)].map(([, name]) => name))
  t.strictSame(options.sort(), Object.keys(resolveOptions()).sort())

  const errors = [...section('Errors').matchAll(/^\| `(WSG_\w+)` \| (\d+) \|/gm)].map(([, code, status]) => `${code} ${status}`)
  t.strictSame(errors.sort(), Object.entries(errorCodes).map(([code, { statusCode }]) => `${code} ${statusCode}`).sort())

  const closeCodes = cells(section('Close codes')).flatMap(cell => cell.match(/\d+/g) ?? []).map(Number)
  t.strictSame(closeCodes.sort(), Object.values(CloseCode).sort())
})

t.test('docs/backplane.md lists every method of the contract', async (t) => {
  const contract = read('lib/backplane/backplane.ts')
  const page = read('docs/backplane.md')
  const methods = ['Backplane', 'LocalInstance'].flatMap(name => {
    const [, body = ''] = new RegExp(`^export interface ${name} {\n(.*?)^}`, 'ms').exec(contract) ?? []
    return [...body.matchAll(/^ {2}(\w+)\?? \(/gm)].map(([, method]) => method)
  })
  t.ok(methods.length > 10, 'found the methods')
  t.strictSame(methods.filter(method => !page.includes(`\`${method}(`)), [])
})

t.test('no page names an error code that there is not', async (t) => {
  const named = everyPage.flatMap(page => read(page).match(/WSG_[A-Z_]*[A-Z]/g) ?? [])
  t.strictSame([...new Set(named)].filter(code => !Object.hasOwn(errorCodes, code)), [])
})

t.test('the README is short, and lines are as long as an editor is wide', async (t) => {
  t.ok(read('README.md').trimEnd().split('\n').length < 250)
  const long = everyPage.flatMap(page => read(page).split('\n')
    .map((line, index) => ({ line, at: `${page}:${index + 1}` }))
    // A row of a table is one line, whatever it holds.
    .filter(({ line }) => line.length > 120 && !line.startsWith('|')))
  t.strictSame(long.map(({ at }) => at), [])
})

t.test('C and CSS, which eslint does not read, have lines as long as it allows', async (t) => {
  const files = ['bench/native', 'example-app/public', 'example-app/workspace/page'].flatMap(
    folder => readdirSync(join(root, folder)).map(name => `${folder}/${name}`)
  ).filter(name => /\.(?:c|h|css)$/.test(name))
  t.ok(files.length > 5, 'found the files')
  t.strictSame(files.filter(file => read(file).split('\n').some(line => line.length > 140)), [])
})

t.test('the checks above find what they look for', async (t) => {
  const page = '[a](redis.md) [b](redis.md#keys) [c](redis.md#no-key) [d](no.md) [e](https://example.com/no)\n```\n[f](no.md)\n```\n'
  t.strictSame(deadLinks('docs/x.md', page), [
    'docs/x.md: redis.md#no-key', 'docs/x.md: no.md'
  ])
  const files = 'See `lib/no.ts`, `lib/ids.ts`, lib/hub/, https://example.com/lib/x.ts and test/no.ts.'
  t.strictSame(missingFiles('docs/x.md', files), ['docs/x.md: lib/no.ts', 'docs/x.md: test/no.ts'])
})
