import type { ContractIn, PastEvent } from 'fastify-websocket-groups/client/messages'
import { useEvent, useGroup, type Connection } from 'fastify-websocket-groups/react'
import { useEffect, useState } from 'react'
import type { Workspace } from '../workspace.ts'

export type WorkspaceConnection = Connection<ContractIn<Workspace>>
type LogEvent = Extract<PastEvent<ContractIn<Workspace>>, { readonly name: 'said' | 'read' }>
type Said = Extract<LogEvent, { readonly name: 'said' }>

interface Log {
  readonly said: readonly Said[]
  /** By user, the position of the latest message that the user has read. */
  readonly readUpTo: ReadonlyMap<string, string>
  /** The state of the page of messages that was asked for last. */
  readonly state: 'loading' | 'loaded' | 'failed'
  /** Whether there is more before what is shown. */
  readonly more: boolean
  /** Never rejects: see `state`. */
  loadEarlier (): Promise<void>
}

/** What was said in a room and who has read it: new messages as they come, earlier ones page by page. */
export function useLog (connection: WorkspaceConnection, room: string): Log {
  const { chat, client } = connection
  const { joined } = useGroup(connection, room, { join: false })
  const [events, setEvents] = useState<readonly LogEvent[]>([])
  const [more, setMore] = useState(false)
  const [state, setState] = useState<Log['state']>('loading')

  const add = (event: LogEvent): void => setEvents(before => [...before, event])
  useEvent(connection, 'said', (data, { position = '', at = 0 }) => add({ name: 'said', data, position, at }))
  useEvent(connection, 'read', (data, { position = '', at = 0 }) => add({ name: 'read', data, position, at }))

  const loadEarlier = async (): Promise<void> => {
    if (chat === undefined) return
    setState('loading')
    try {
      const page = await chat.history(room, { before: events[0]?.position, limit: 50, reverse: true })
      const earlier = page.events.filter(event => event.name === 'said' || event.name === 'read').reverse()
      setMore(page.more)
      // What came while the page was read may be in it, too.
      setEvents(known => [...earlier.filter(({ position }) => known.every(event => event.position !== position)), ...known])
      setState('loaded')
    } catch {
      setState('failed')
    }
  }

  const empty = events.length === 0
  useEffect(() => {
    if (joined && empty) void loadEarlier()     // After a break the room is joined again, and this is repeated.
  }, [chat, joined, empty])
  useEffect(() => client?.on('gap', ({ group }) => { if (group === room) setEvents([]) }), [client, room])

  return {
    said: events.filter(event => event.name === 'said'),
    readUpTo: new Map(events.flatMap(event => event.name === 'read' ? [[event.data.by, event.data.upTo] as const] : [])),
    state,
    more,
    loadEarlier
  }
}
