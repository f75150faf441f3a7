/* global addEventListener, document, FormData, history, location, sessionStorage */
import { avatar, element, find } from './dom.js'
import { Log } from './log.js'
import { People } from './people.js'
import { Visit } from './visit.js'

// The demonstration's users, with their tokens on show. A real page gets its token from a login.
const users = {
  john: { name: 'John Doe', token: 'valid-token' },
  jane: { name: 'Jane Roe', token: 'jane-token' },
  alex: { name: 'Alex Kim', token: 'alex-token' },
  maria: { name: 'Maria Silva', token: 'maria-token' }
}
const stateTexts = { connecting: 'Connecting…', open: 'Connected', waiting: 'Reconnecting', offline: 'Offline', closed: 'Disconnected' }
const placeholders = { open: 'Write a message', closed: 'Not connected' }

/** The room that is shown, or undefined. */
let current
let countdown

function enter (userId, room) {
  const { name, token } = users[userId]
  show('chat')
  history.replaceState(null, '', `?${new URLSearchParams({ room, user: userId })}`)
  find('room-name').textContent = room
  const key = `session ${userId} ${room}`
  current = { name, room, key, unread: 0, wasOpen: false }
  title()
  const entered = current
  const url = new URL(`ws/chat/${encodeURIComponent(room)}`, location.href)
  url.search = ''
  current.visit = new Visit({ url, token, session: takeSession(key), name, room }, new Log(find('log'), name), new People(name), {
    onState (change) { if (current === entered) showState(change) },
    onNews () {
      if (current !== entered || !document.hidden) return
      current.unread++
      title()
    }
  })
  find('text').focus()
}

function leave () {
  const { visit } = current
  current = undefined
  clearInterval(countdown)
  visit.leave()
  history.replaceState(null, '', location.pathname)
  title()
  show('door')
}

function show (id) {
  for (const main of document.querySelectorAll('main')) main.hidden = main.id !== id
}

function title () {
  const unread = current?.unread > 0 ? `(${current.unread}) ` : ''
  document.title = current === undefined ? 'Rooms' : `${unread}#${current.room} · ${current.name}`
}

function showState ({ state, retryInMs = 0 }) {
  clearInterval(countdown)
  find('chat').dataset.state = find('state').dataset.state = state
  find('composer').querySelector('button').disabled = state === 'closed'
  find('text').placeholder = placeholders[state] ?? (current.wasOpen ? 'Sent when you are back' : placeholders.open)
  current.wasOpen ||= state === 'open'
  find('state').textContent = state === 'connecting' && current.wasOpen ? 'Reconnecting…' : stateTexts[state]
  if (state !== 'waiting') return
  // Screen readers skip the seconds: they would read them out again and again.
  const seconds = element('span', { 'aria-hidden': 'true' })
  const at = performance.now() + retryInMs
  const tick = () => { seconds.textContent = ` in ${Math.max(1, Math.ceil((at - performance.now()) / 1000))} s` }
  tick()
  find('state').append(seconds)
  countdown = setInterval(tick, 1000)
}

// A page that is loaded again keeps its session: to the others it is the same client. The session is stored only while there is no page,
// because a tab that is duplicated gets a copy of the storage.
function takeSession (key) {
  const session = sessionStorage.getItem(key)
  sessionStorage.removeItem(key)
  return session ?? undefined
}

addEventListener('pagehide', () => {
  const session = current?.visit.session
  if (session) sessionStorage.setItem(current.key, session)
})

addEventListener('pageshow', () => {
  if (current) takeSession(current.key)
})

find('choices').append(...Object.entries(users).map(([userId, { name }], at) => {
  const radio = element('input', { type: 'radio', name: 'user', value: userId, required: '' })
  radio.checked = at === 0
  return element('label', {}, radio, avatar(name), name)
}))

find('join').addEventListener('submit', event => {
  event.preventDefault()
  const answers = new FormData(event.target)
  enter(answers.get('user'), answers.get('room'))
})

find('composer').addEventListener('submit', event => {
  event.preventDefault()
  const input = find('text')
  if (input.value.trim() !== '') {
    current.visit.send(input.value)
    input.value = ''
  }
  input.focus()
})

find('leave').addEventListener('click', leave)

document.addEventListener('visibilitychange', () => {
  if (document.hidden || current === undefined) return
  current.unread = 0
  title()
})

// A reload, or a link such as ?room=lobby&user=jane, leads straight into the room.
const asked = new URLSearchParams(location.search)
if (Object.hasOwn(users, asked.get('user') ?? '') && asked.get('room')) enter(asked.get('user'), asked.get('room'))
else show('door')
