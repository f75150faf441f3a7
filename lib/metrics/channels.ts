import { channel } from 'node:diagnostics_channel'
import type { AnyConnection, BackplaneState, GapReason } from '../types.ts'

const prefix = 'fastify-websocket-groups:'

/** What is told on each channel, see docs/operations.md. */
export interface Events {
  'connection.open': { readonly connection: AnyConnection }
  'connection.close': { readonly connection: AnyConnection, readonly code: number, readonly reason: string }
  'group.join': { readonly connection: AnyConnection, readonly group: string }
  'group.leave': { readonly connection: AnyConnection, readonly group: string }
  publish: { readonly kind: string, readonly names: readonly string[], readonly bytes: number }
  gap: { readonly group: string, readonly reason: GapReason }
  /** `connection` where it is one that hit the limit; an upgrade has none yet. */
  limit: { readonly limit: string, readonly connection?: AnyConnection | undefined }
  backplane: { readonly state: BackplaneState, readonly problems: readonly string[] }
}

const channels = Object.fromEntries(
  ['connection.open', 'connection.close', 'group.join', 'group.leave', 'publish', 'gap', 'limit', 'backplane'].map(
    name => [name, channel(prefix + name)]
  )
) as Record<keyof Events, ReturnType<typeof channel>>

/** Tells those who listen on the channel. Where nobody does, `event` is not called, and nothing is made. */
export function announce<Name extends keyof Events> (name: Name, event: () => Events[Name]): void {
  const target = channels[name]
  if (target.hasSubscribers) target.publish(event())
}
