import t from 'tap'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

const page = readFileSync('docs/scaling.md', 'utf8')
const print = (args: readonly string[]): string => {
  return execFileSync(process.execPath, ['scripts/scaling.mjs', ...args], { encoding: 'utf8' }).replace(/ +$/gm, '').trimEnd()
}
const examples = [...page.matchAll(/^```sh\nnode scripts\/scaling\.mjs(.*)\n```\n\n```text\n([^]*?)\n```$/gm)]

t.test('the examples of the page are what the script prints', async t => {
  t.equal(examples.length, 2)
  for (const [, args = '', shown = ''] of examples) t.equal(print(args.split(' ').filter(Boolean)), shown, args)
})

t.test('the script calculates with the unit costs of the page', async t => {
  const costs = [...page.matchAll(/^\| `(\w+)` \|[^|]*\| ([\d.]+) \|/gm)].flatMap(([, name = '', cost = '']) => [`--${name}`, cost])
  t.equal(costs.length, 2 * 13)
  const [, [, args = ''] = []] = examples
  const given = [...args.split(' ').filter(Boolean), '--logged', '50']
  const shown = print(given)
  t.equal(print([...given, ...costs]), shown)
  for (let at = 0; at < costs.length; at += 2) t.not(print([...given, costs[at] ?? '', '1e6']), shown, `${costs[at]} counts`)
})
