import t from 'tap'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

// What example-app/workspace/README.md says of the lines that each feature takes.

const folder = join(import.meta.dirname, '../../example-app/workspace')
const maxLines = 10

/** By feature, how many lines its regions have that are code. */
function linesOfFeatures (): Map<string, number> {
  const counts = new Map<string, number>()
  for (const file of readdirSync(folder).filter(name => name.endsWith('.ts'))) {
    let feature: string | undefined
    for (const line of readFileSync(join(folder, file), 'utf8').split('\n').map(text => text.trim())) {
      if (line.startsWith('// #region ')) feature = line.slice('// #region '.length)
      else if (line === '// #endregion') feature = undefined
      else if (feature !== undefined && line !== '' && !line.startsWith('//')) counts.set(feature, (counts.get(feature) ?? 0) + 1)
    }
  }
  return counts
}

t.test('each feature of the workspace takes as many lines as its README says, and at most ten', async t => {
  const readme = readFileSync(join(folder, 'README.md'), 'utf8')
  const said = Array.from(readme.matchAll(/^\| ([\w ]+) \| (\d+) \|/gm), ([, name = '', lines]) => [name, Number(lines)] as const)
  t.equal(said.length, 14)
  const counted = linesOfFeatures()
  t.strictSame(Object.fromEntries(counted), Object.fromEntries(said))
  for (const [name, lines] of counted) t.ok(lines <= maxLines, `${name}: ${lines}`)
})
