import type { Description, Json } from '../../types.ts'

const shownNames = 5
const shownVariants = 10

/** Instances that are configured alike. */
interface Alike { readonly instances: number, readonly names: readonly string[] }

interface Configurations {
  /** What most instances have in common: versions and options. `null` when none answered. */
  readonly most: Alike & { readonly configuration: Json } | null
  /** How the others differ from them: by path, such as `options.limits.messages.perSecond`. */
  readonly others: ReadonlyArray<Alike & { readonly differs: Readonly<Record<string, Json>> }>
  /** How many more kinds of configuration there are. */
  readonly more: number
}

/** Groups instances that are configured alike, so that a different one stands out among a thousand. */
export function compareConfigurations (descriptions: readonly Description[]): Configurations {
  const kinds = new Map<string, { readonly configuration: Json, readonly names: string[] }>()
  for (const { health, startedAt: _startedAt, options: { instanceLabel = null, ...options }, ...versions } of descriptions) {
    const configuration = { ...versions, options }
    // Sorted: options are described in the order in which they were given.
    const key = JSON.stringify([...flat(configuration)].sort())
    const kind = kinds.get(key) ?? { configuration, names: [] as string[] }
    kinds.set(key, kind)
    kind.names.push(typeof instanceLabel === 'string' ? instanceLabel : health.instanceId)
  }
  const [first, ...rest] = [...kinds.values()].sort((a, b) => b.names.length - a.names.length)
  if (first === undefined) return { most: null, others: [], more: 0 }
  const alike = (names: readonly string[]): Alike => ({ instances: names.length, names: [...names].sort().slice(0, shownNames) })
  const common = flat(first.configuration)
  const others = rest.slice(0, shownVariants).map(({ configuration, names }) => {
    const own = flat(configuration)
    const paths = [...new Set([...common.keys(), ...own.keys()])].filter(path => common.get(path) !== own.get(path))
    return { ...alike(names), differs: Object.fromEntries(paths.map(path => [path, own.get(path) ?? null])) }
  })
  return {
    most: { ...alike(first.names), configuration: first.configuration }, others, more: Math.max(0, rest.length - shownVariants)
  }
}

/** Returns all values that are not objects, by their paths. */
function flat (value: Json, path = ''): Map<string, Json> {
  if (typeof value !== 'object' || value === null) return new Map([[path, value]])
  return new Map(Object.entries(value).flatMap(([name, one]) => [...flat(one as Json, path === '' ? name : `${path}.${name}`)]))
}
