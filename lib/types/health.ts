import type { Json } from './json.ts'

export type BackplaneState = 'up' | 'degraded' | 'down'

export interface Health {
  /**
   * `up`: all is well. `degraded`: parts of the backplane are out or not yet repaired. `down`: this instance stands alone. `closing`: the
   * instance is shutting down.
   */
  readonly status: BackplaneState | 'closing'
  /** When the status became this, in milliseconds since 1970. */
  readonly since: number
  /** Whether this instance takes new connections now, by the policy `outage.upgrade`. */
  readonly ready: boolean
  readonly instanceId: string
  /** The name of the backplane: 'redis', 'memory' or that of your own. */
  readonly backplane: string
  /** What is wrong, one sentence each. Empty when all is well. */
  readonly problems: readonly string[]
}

/** A description of an instance, for a support ticket. */
export interface Description {
  /** Of this package. */
  readonly version: string
  readonly node: string
  readonly platform: string
  /** In milliseconds since 1970. */
  readonly startedAt: number
  readonly health: Health
  /** The options in force, defaults included. Secrets, and what the application's own functions hold, are left out. */
  readonly options: { readonly [option: string]: Json }
}

/** Numbers by name; counters never go down. */
export type Stats = Readonly<Record<string, number>>
