import { useConnection, useEvent, usePresence } from 'fastify-websocket-groups/react'
import { useCallback, useEffect, useState, type ReactElement } from 'react'
import type { Role } from '../people.ts'
import type { Workspace as Contract } from '../workspace.ts'
import { Avatar } from './avatar.tsx'
import { Conversation, type Whisper } from './conversation.tsx'
import { nameOf, people, tokenOf } from './names.ts'
import { Room } from './room.tsx'

interface RoomOf { readonly room: string, readonly role: Role }

const stateTexts = {
  connecting: 'Connecting', open: 'Connected', waiting: 'Reconnecting', offline: 'Offline', closed: 'Closed'
} as const

/** The rooms of a person. */
function useRooms (me: string) {
  const [rooms, setRooms] = useState<readonly RoomOf[]>([])
  const reload = useCallback(async () => {
    const response = await fetch('/rooms', { headers: { authorization: `Bearer ${tokenOf(me)}` } }).catch(() => undefined)
    if (response?.ok) setRooms(await response.json() as RoomOf[])
  }, [me])
  useEffect(() => { void reload() }, [reload])
  return { rooms, reload }
}

/** Notices, each shown for a few seconds. */
function useNotices () {
  const [notices, setNotices] = useState<ReadonlyArray<{ readonly id: number, readonly text: string }>>([])
  const notify = useCallback((text: string) => {
    const id = Date.now() + Math.random()
    setNotices(before => [...before, { id, text }])
    setTimeout(() => setNotices(before => before.filter(notice => notice.id !== id)), 6_000)
  }, [])
  return { notices, notify }
}

export function Workspace ({ me, onLeave }: { readonly me: string, readonly onLeave: () => void }): ReactElement {
  const { rooms, reload } = useRooms(me)
  const [room, setRoom] = useState('general')
  const connection = useConnection<Contract>(`/ws/${room}`, { token: tokenOf(me), backoff: { minMs: 200, maxMs: 3_000 } })
  const online = usePresence(connection, 'everyone')
  const { notices, notify } = useNotices()

  const [whispers, setWhispers] = useState<readonly Whisper[]>([])
  const [partner, setPartner] = useState<string>()
  const [unread, setUnread] = useState<ReadonlySet<string>>(new Set())
  useEvent(connection, 'whispered', ({ from, to, text }, { at = Date.now() }) => {
    const other = from === me ? to : from
    setWhispers(before => [...before, { from, other, text, at }])
    if (other !== partner) setUnread(before => new Set([...before, other]))
  })
  useEvent(connection, 'notified', ({ text }) => notify(text))

  const { client } = connection
  useEffect(() => client?.on('left', ({ group, reason }) => {
    if (group === 'everyone') return
    notify(`You are out of #${group}: ${reason ?? 'the room is closed to you'}`)
    void reload()
  }), [client, notify, reload])
  // Each connection asks anew: the service may not have answered the first time.
  useEffect(() => { if (connection.state === 'open') void reload() }, [connection.state, reload])
  const role = rooms.find(one => one.room === room)?.role
  useEffect(() => {
    const [first] = rooms
    if (role === undefined && first !== undefined) setRoom(first.room)
  }, [role, rooms])

  const openPerson = (userId: string): void => {
    setPartner(userId)
    setUnread(before => new Set([...before].filter(one => one !== userId)))
  }
  const instance = online.find(({ userId }) => userId === me)?.info?.instance
  return (
    <div className='workspace'>
      <aside>
        <nav aria-label='Rooms'>
          <h2>Rooms</h2>
          <ul>
            {rooms.map(({ room: name, role }) => (
              <li key={name}>
                <button
                  aria-current={name === room && partner === undefined ? 'page' : undefined}
                  onClick={() => { setRoom(name); setPartner(undefined) }}
                >
                  <span className='hash'>#</span><span className='label'>{name}</span>{role !== 'member' && <small>{role}</small>}
                </button>
              </li>
            ))}
          </ul>
        </nav>
        <nav aria-label='People'>
          <h2>People <small>{online.length} online</small></h2>
          <ul>
            {people.filter(({ userId }) => userId !== me).map(({ userId, name }) => (
              <li key={userId}>
                <button aria-current={userId === partner ? 'page' : undefined} onClick={() => openPerson(userId)}>
                  <Avatar userId={userId} online={online.some(member => member.userId === userId)} />
                  <span className='label'>{name}</span>{unread.has(userId) && <b className='unread' title='New messages' />}
                </button>
              </li>
            ))}
          </ul>
        </nav>
        <footer>
          <Avatar userId={me} online={connection.state === 'open'} />
          <div>
            <strong>{nameOf(me)}</strong>
            <small role='status'>{[stateTexts[connection.state], ...(connection.state === 'open' ? [instance] : [])].join(' · ')}</small>
          </div>
          <button className='quiet' onClick={onLeave} title='Be somebody else'>Leave</button>
        </footer>
      </aside>
      {partner === undefined
        ? role !== undefined && <Room key={room} {...{ me, room, role, connection, notify }} />
        : <Conversation key={partner} {...{ partner, connection, whispers: whispers.filter(({ other }) => other === partner) }} />}
      <div className='notices' role='log' aria-label='Notifications'>
        {notices.map(({ id, text }) => <p key={id}>{text}</p>)}
      </div>
    </div>
  )
}
