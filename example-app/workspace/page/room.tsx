import { useEvent, usePresence, useRequest, useStreams } from 'fastify-websocket-groups/react'
import type { StreamView } from 'fastify-websocket-groups/client/streams'
import { useEffect, useRef, useState, type ReactElement } from 'react'
import type { Role } from '../people.ts'
import { Avatar } from './avatar.tsx'
import { Composer } from './composer.tsx'
import { nameOf } from './names.ts'
import { Bubble, timeOf, Timeline } from './timeline.tsx'
import { useLog, type WorkspaceConnection } from './use-log.ts'

interface RoomProps {
  readonly me: string
  readonly room: string
  readonly role: Role
  readonly connection: WorkspaceConnection
  readonly notify: (text: string) => void
}

/** Who is writing. Nobody says that they stop, so each event counts for four seconds. */
function useTyping (connection: WorkspaceConnection): { readonly typing: readonly string[], tell (): void } {
  const [typing, setTyping] = useState<readonly string[]>([])
  const timers = useRef(new Map<string, ReturnType<typeof setTimeout>>())
  const stop = (userId: string): void => {
    clearTimeout(timers.current.get(userId))
    setTyping(before => before.filter(one => one !== userId))
  }
  useEvent(connection, 'typing', ({ from }) => {
    stop(from)
    setTyping(before => [...before, from])
    timers.current.set(from, setTimeout(() => stop(from), 4_000))
  })
  useEvent(connection, 'said', ({ from }) => stop(from))

  const toldAt = useRef(0)
  const tell = (): void => {
    if (Date.now() - toldAt.current < 2_000) return
    toldAt.current = Date.now()
    connection.chat?.emit('typing')
  }
  return { typing, tell }
}

export function Room ({ me, room, role, connection, notify }: RoomProps): ReactElement {
  const { said, readUpTo, state, more, loadEarlier } = useLog(connection, room)
  const members = usePresence(connection, room)
  const streams = useStreams(connection, room)
  const { typing, tell } = useTyping(connection)
  const { chat } = connection

  // Whoever looks at the page has read what is on it.
  const last = said.at(-1)
  const read = last !== undefined && last.data.from !== me && readUpTo.get(me) !== last.position ? last.position : undefined
  useEffect(() => {
    if (read === undefined || document.hidden) return
    // When several messages come at once, it is enough to report the last one.
    const timer = setTimeout(() => chat?.emit('read', { upTo: read }), 200)
    return () => clearTimeout(timer)
  }, [chat, read])

  const readers = (position: string): string[] => [...readUpTo].filter(([by, upTo]) => upTo === position && by !== me).map(([by]) => by)
  const told = async (request: Promise<unknown> | undefined, text: string): Promise<void> => {
    try {
      await request
      notify(text)
    } catch (error) {
      notify((error as Error).message)
    }
  }
  const items = [...said, ...streams].sort((one, other) => timeIn(one) - timeIn(other))
  return (
    <main>
      <header>
        <h1><span className='hash'>#</span>{room}</h1>
        <ul className='members' aria-label='In this room'>
          {members.map(({ userId = '' }) => (
            <li key={userId} title={nameOf(userId)}>
              <Avatar userId={userId} /><span className='visually-hidden'>{nameOf(userId)}</span>
              {role === 'owner' && userId !== me && (
                <button
                  aria-label={`Take ${nameOf(userId)} out`} title={`Take ${nameOf(userId)} out`}
                  onClick={() => { void told(chat?.request('kick', { userId }), `${nameOf(userId)} is out of #${room}`) }}
                >×
                </button>
              )}
            </li>
          ))}
        </ul>
        <Search connection={connection} />
        <button className='quiet' onClick={() => { void told(chat?.request('report'), 'A worker writes the report.') }}>Report</button>
      </header>
      <Timeline label={`Messages in ${room}`} latest={[said.length, typing.length, streams.map(({ text }) => text.length)].join()}>
        {state === 'failed' && <li className='more' role='alert'>Messages could not be loaded.</li>}
        {(more || state === 'failed') && (
          <li className='more'>
            <button className='quiet' disabled={state === 'loading'} onClick={() => { void loadEarlier() }}>
              {state === 'failed' ? 'Try again' : 'Earlier messages'}
            </button>
          </li>
        )}
        {items.length === 0 && state === 'loaded' && <li className='nothing'>Nothing was said in #{room} yet.</li>}
        {items.map((item, index) => {
          if ('state' in item) return <Answer key={item.id} stream={item} connection={connection} />
          const { data: { from, text }, at, position } = item
          const before = items[index - 1]
          const by = readers(position)
          return (
            <Bubble key={position} from={from} at={at} follows={before !== undefined && 'data' in before && before.data.from === from}>
              <p>{text}</p>
              {by.length > 0 && <p className='readers'>Read by {by.map(nameOf).join(', ')}</p>}
            </Bubble>
          )
        })}
        {typing.length > 0 && <li className='typing'>{typing.map(nameOf).join(', ')} {typing.length === 1 ? 'is' : 'are'} writing</li>}
      </Timeline>
      {role === 'guest'
        ? <p className='composer guest'>You are a guest in #{room}: you may read what others write.</p>
        : <Composer
            label={`Message #${room}`} onTyping={tell}
            actions={{
              Send: async text => await chat?.request('say', { text }),
              'Ask the assistant': async prompt => await chat?.request('ask', { prompt })
            }}
          />}
    </main>
  )
}

const timeIn = (item: { readonly at: number } | StreamView): number => 'at' in item ? item.at : (item.meta as { readonly at: number }).at

/** What the assistant says, as it comes. */
function Answer ({ stream, connection }: { readonly stream: StreamView, readonly connection: WorkspaceConnection }): ReactElement {
  const { group, id, text, state, meta } = stream
  const stop = (): void => { connection.streams?.stop(group, id).catch(() => {}) }
  return (
    <li className='answer' data-state={state} aria-busy={state === 'open'}>
      <p className='by'><strong>Assistant</strong> <time>{timeOf((meta as { readonly at: number }).at)}</time>
        {state === 'open' && <button className='quiet' onClick={stop}>Stop</button>}
        {state === 'stopped' && <small>stopped</small>}
        {state === 'failed' && <small>failed</small>}
      </p>
      <p>{text}</p>
    </li>
  )
}

function Search ({ connection }: { readonly connection: WorkspaceConnection }): ReactElement {
  const { request, reply } = useRequest(connection, 'search')
  const [text, setText] = useState('')
  return (
    <search>
      <input
        type='search' aria-label='Search in this room' placeholder='Search' value={text}
        onChange={({ target: { value } }) => {
          setText(value)
          if (value !== '') request({ text: value }).catch(() => {})
        }}
      />
      {text !== '' && reply !== undefined && (
        <ul aria-label='Found'>
          {reply.map(({ from, text, position }) => <li key={position}><strong>{nameOf(from)}</strong> {text}</li>)}
          {reply.length === 0 && <li>Nothing found</li>}
        </ul>
      )}
    </search>
  )
}
