import { useCallback, useEffect, useLayoutEffect, useRef, useState, useSyncExternalStore } from 'react'
import type { Contract } from '../protocol/contract.ts'
import type { ClientError } from './errors.ts'
import type { Client } from './index.ts'
import { connect, type ContractIn, type EventInfo, type MessageClient, type RequestOptions } from './messages.ts'
import { streamsOf, type Streams, type StreamView } from './streams.ts'
import type { ConnectOptions, Member, Message, State } from './types.ts'

/** A connection as components share it. Before the first one is mounted, and on a server, there is none: `connecting`. */
export interface Connection<Agreed extends Contract = Contract> {
  /** The client for messages by name. */
  readonly chat: MessageClient<Agreed> | undefined
  /** The connection that messages by name travel by. */
  readonly client: Client | undefined
  readonly streams: Streams | undefined
  readonly state: State
}

export interface GroupOptions {
  /** Whether to ask the server for the group; `false` where the route itself puts the connection into it. @default true */
  readonly join?: boolean | undefined
  /** Called with each message of the group. */
  readonly onMessage?: ((message: Message) => void) | undefined
}

/** A request, and what became of the latest one. */
export interface RequestState<Data, Reply> {
  /** As `MessageClient.request`. */
  request (data: Data, options?: RequestOptions): Promise<Reply>
  readonly pending: boolean
  readonly reply: Reply | undefined
  readonly error: ClientError | undefined
}

interface Shared {
  readonly chat: MessageClient
  readonly streams: Streams
  users: number
  closing: ReturnType<typeof setTimeout> | undefined
}

/** Connections that components share, by URL. */
const shared = new Map<string, Shared>()
/** How long a connection outlives its last component: one that is mounted twice (StrictMode), or anew (hot reload), finds it as it was. */
const lingerMs = 500

const none: readonly Member[] = []
const nothing = (): (() => void) => () => {}
/** Runs before the browser goes on, so that no message arrives before its handler. On a server React warns of layout effects. */
const useEffectAtOnce = 'document' in globalThis ? useLayoutEffect : useEffect

function acquire (url: string, options: ConnectOptions | undefined): Shared {
  const known = shared.get(url)
  const alive = known !== undefined && known.chat.connection.state !== 'closed'
  const entry = alive ? known : share(url, options)
  clearTimeout(entry.closing)
  entry.users++
  return entry
}

function share (url: string, options: ConnectOptions | undefined): Shared {
  const chat = connect(url, options)
  const entry: Shared = { chat, streams: streamsOf(chat.connection), users: 0, closing: undefined }
  shared.set(url, entry)
  return entry
}

function release (url: string, entry: Shared): void {
  if (--entry.users > 0) return
  entry.closing = setTimeout(() => {
    if (shared.get(url) === entry) shared.delete(url)
    entry.chat.close()
  }, lingerMs)
}

/**
 * A connection to a route, as `connect` of `fastify-websocket-groups/client/messages` makes it. All components that name the same URL share
 * one; it closes after the last of them. The options of the first one count.
 */
export function useConnection<Source = Contract> (url: string | URL, options?: ConnectOptions): Connection<ContractIn<Source>> {
  const address = String(url)
  const [entry, setEntry] = useState<Shared>()
  const latest = useRef(options)
  latest.current = options
  useEffectAtOnce(() => {
    const acquired = acquire(address, latest.current)
    setEntry(acquired)
    return () => release(address, acquired)
  }, [address])
  const client = entry?.chat.connection
  const state = useChanging(client, () => client?.state ?? 'connecting', 'connecting')
  return { chat: entry?.chat as MessageClient<ContractIn<Source>> | undefined, client, streams: entry?.streams, state }
}

/** Joins a group, and leaves it with the component. Returns whether the connection is in it, and why the server did not let it in. */
export function useGroup (
  { client }: Pick<Connection, 'client'>, group: string, { join = true, onMessage }: GroupOptions = {}
): { readonly joined: boolean, readonly error: ClientError | undefined } {
  const [error, setError] = useState<ClientError>()
  const handler = useRef(onMessage)
  handler.current = onMessage
  useEffectAtOnce(() => {
    if (client === undefined) return
    const off = client.on('message', message => { if (message.group === group) handler.current?.(message) })
    let mounted = true
    const failed = (error: ClientError): void => { if (mounted) setError(error) }
    setError(undefined)
    if (join) client.join(group).catch(failed)
    return () => {
      mounted = false
      off()
      // A failure needs no report: a client that was not let in has nothing to leave, and a closed one has left.
      if (join) client.leave(group).catch(failed)
    }
  }, [client, group, join])
  return { joined: useChanging(client, () => client?.groups.includes(group) ?? false, false), error }
}

/** Calls the handler with the data of each event of this name, of any group, while the component is mounted. */
export function useEvent<Agreed extends Contract, Of extends keyof Agreed['events'] & string> (
  { chat }: Pick<Connection<Agreed>, 'chat'>, name: Of, handler: (data: Agreed['events'][Of], info: EventInfo) => void
): void {
  const latest = useRef(handler)
  latest.current = handler
  useEffectAtOnce(() => chat?.on(name, (data, info) => latest.current(data, info)), [chat, name])
}

/** Who is in the group, where the route has presence on. */
export function usePresence ({ client }: Pick<Connection, 'client'>, group: string): readonly Member[] {
  return useChanging(client, () => client?.members(group) ?? none, none)
}

/** A stream of tokens of the group, from its beginning; `undefined` as long as none of this id is known. */
export function useStream ({ streams }: Pick<Connection, 'streams'>, group: string, id: string): StreamView | undefined {
  return useChanging(streams, () => streams?.get(group, id), undefined)
}

/** All streams of tokens of the group that this client knows, oldest first. */
export function useStreams ({ streams }: Pick<Connection, 'streams'>, group: string): readonly StreamView[] {
  const list = useRef<readonly StreamView[]>([])
  return useChanging(streams, () => {
    const now = streams?.list(group) ?? []
    const isSame = now.length === list.current.length && now.every((view, index) => view === list.current[index])
    if (!isSame) list.current = now
    return list.current
  }, list.current)
}

/** A message by name that has a reply. Of several requests at once the state is that of the latest. */
export function useRequest<Agreed extends Contract, Of extends keyof Agreed['messages'] & string> (
  { chat }: Pick<Connection<Agreed>, 'chat'>, name: Of
): RequestState<Agreed['messages'][Of]['data'], Agreed['messages'][Of]['reply']> {
  type Reply = Agreed['messages'][Of]['reply']
  type Latest = Omit<RequestState<unknown, Reply>, 'request'>
  const [latest, setLatest] = useState<Latest>({ pending: false, reply: undefined, error: undefined })
  const count = useRef(0)
  // A component that is gone hears of no reply.
  useEffect(() => () => { count.current++ }, [])
  const request = useCallback(async (data: unknown, options?: RequestOptions): Promise<Reply> => {
    const mine = ++count.current
    const tell = (state: Partial<Latest>): void => {
      if (mine === count.current) setLatest({ pending: false, reply: undefined, error: undefined, ...state })
    }
    tell({ pending: true })
    try {
      if (chat === undefined) throw Object.assign(new Error('the component is not mounted'), { code: 'CLOSED' })
      const reply = await (chat as unknown as MessageClient).request(name, data, options)
      tell({ reply })
      return reply
    } catch (error) {
      tell({ error: error as ClientError })
      throw error
    }
  }, [chat, name])
  return { request, ...latest }
}

/** What a store says now, and again after each of its changes. */
function useChanging<Value> (
  store: { subscribe (listener: () => void): () => void } | undefined, read: () => Value, onServer: Value
): Value {
  const subscribe = useCallback((listener: () => void) => store === undefined ? nothing() : store.subscribe(listener), [store])
  return useSyncExternalStore(subscribe, read, () => onServer)
}
