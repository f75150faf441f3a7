import { channel } from 'node:diagnostics_channel'
import type { AnyConnection, BackplaneState, GapReason } from '../types.ts'

const prefix = 'fastify-websocket-groups:'

/** A process has the same channels for all its instances. The id of a connection begins with that of its instance. */
interface OfInstance { readonly instanceId: string }

/** The events of each channel, see docs/operations.md. */
export interface Events {
  'connection.open': { readonly connection: AnyConnection }
  'connection.close': { readonly connection: AnyConnection, readonly code: number, readonly reason: string }
  'group.join': { readonly connection: AnyConnection, readonly group: string }
  'group.leave': { readonly connection: AnyConnection, readonly group: string }
  publish: OfInstance & { readonly kind: string, readonly names: readonly string[], readonly bytes: number }
  gap: OfInstance & { readonly group: string, readonly reason: GapReason }
  /** `connection` is set when a connection hit the limit; an upgrade has none yet. */
  limit: OfInstance & { readonly limit: string, readonly connection?: AnyConnection | undefined }
  backplane: OfInstance & { readonly state: BackplaneState, readonly problems: readonly string[] }
}

const channels = Object.fromEntries(
  ['connection.open', 'connection.close', 'group.join', 'group.leave', 'publish', 'gap', 'limit', 'backplane'].map(
    name => [name, channel(prefix + name)]
  )
) as Record<keyof Events, ReturnType<typeof channel>>

/** Publishes an event on its channel. Without subscribers `event` is not called, so that nothing is allocated. */
export function announce<Name extends keyof Events> (name: Name, event: () => Events[Name]): void {
  const target = channels[name]
  if (target.hasSubscribers) target.publish(event())
}
