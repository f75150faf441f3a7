import type { ResolvedOptions } from './resolve.ts'
import { invalid } from './rules.ts'

/** How much of Fastify's `pluginTimeout` is left for the rest of the boot: this many milliseconds, or this share where that is less. */
const restMs = 1_000
const restShare = 1 / 3

/**
 * Makes the wait for Redis end before Fastify gives up on the whole application: the default of `bootTimeoutMs` is cut to what fits into
 * `pluginTimeoutMs`, where 0 is no limit. `given`: the `bootTimeoutMs` that the application set.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID when the one that the application set does not fit
 */
export function fitBootTimeout (options: ResolvedOptions, given: number | undefined, pluginTimeoutMs = 0): ResolvedOptions {
  const mostMs = Math.floor(pluginTimeoutMs - Math.min(restMs, pluginTimeoutMs * restShare))
  if (options.redis === undefined || pluginTimeoutMs === 0 || options.bootTimeoutMs <= mostMs) return options
  if (given === undefined) return { ...options, bootTimeoutMs: mostMs }
  throw invalid(`bootTimeoutMs is ${given}, but Fastify's pluginTimeout of ${pluginTimeoutMs} ms would end the boot earlier: ` +
    `set bootTimeoutMs to at most ${mostMs}, or pluginTimeout to more`)
}
