/* global addEventListener, document, fetch, FormData, history, location */
import { reconnectingSocket } from './reconnecting-socket.js'
import { addMessage, avatar, element, find, parse, showMembers } from './view.js'

// The demonstration's users, with their tokens on show. A real page gets its token from a login.
const users = {
  john: { name: 'John Doe', token: 'valid-token' },
  jane: { name: 'Jane Roe', token: 'jane-token' },
  alex: { name: 'Alex Kim', token: 'alex-token' },
  maria: { name: 'Maria Silva', token: 'maria-token' }
}
const pollMs = 10_000
const stateTexts = { connecting: 'Connecting…', open: 'Connected', waiting: 'Offline' }

/** The room on show, or nothing. */
let visit

function enter (userId, room) {
  const { name, token } = users[userId]
  const url = new URL(`ws/chat/${encodeURIComponent(room)}`, location.href)
  url.protocol = url.protocol.replace('http', 'ws')
  url.search = ''

  show('chat')
  history.replaceState(null, '', `?${new URLSearchParams({ room, user: userId })}`)
  find('room-name').textContent = room
  find('log').replaceChildren()
  showMembers([], name)
  const current = visit = { name, room, unread: 0, wasOpen: false, poll: setInterval(refreshMembers, pollMs) }
  title()
  visit.socket = reconnectingSocket(url, token, {
    onState (state) { if (visit === current) showState(state) },
    onText (text) { if (visit === current) receive(parse(text)) }
  })
  find('text').focus()
}

function leave () {
  const { socket, poll, countdown } = visit
  visit = undefined
  clearInterval(poll)
  clearInterval(countdown)
  socket.close()
  history.replaceState(null, '', location.pathname)
  title()
  show('door')
}

function show (id) {
  for (const main of document.querySelectorAll('main')) main.hidden = main.id !== id
}

function title () {
  document.title = visit === undefined ? 'Rooms' : `${visit.unread > 0 ? `(${visit.unread}) ` : ''}#${visit.room} · ${visit.name}`
}

function receive (message) {
  addMessage(find('log'), message, visit.name)
  if (message.kind === 'presence') refreshMembers()
  if (document.hidden && message.kind !== 'note') {
    visit.unread++
    title()
  }
}

function showState ({ name, retryAt }) {
  clearInterval(visit.countdown)
  find('chat').dataset.state = find('state').dataset.state = name
  find('composer').querySelector('button').disabled = name !== 'open'
  if (name === 'open') {
    if (visit.wasOpen) addMessage(find('log'), { kind: 'note', text: 'Connected again. What was said meanwhile did not reach this page.' }, visit.name)
    visit.wasOpen = true
    refreshMembers()
  }
  find('state').replaceChildren(stateTexts[name])
  if (name !== 'waiting') return
  // Not read out every second.
  const countdown = element('span', { 'aria-hidden': 'true' })
  const tick = () => { countdown.textContent = `, next try in ${Math.max(1, Math.ceil((retryAt - performance.now()) / 1000))} s` }
  tick()
  find('state').append(countdown)
  visit.countdown = setInterval(tick, 1000)
}

async function refreshMembers () {
  const asking = visit
  try {
    // Behind a load balancer this may ask another instance than the WebSocket's: every instance knows the whole group.
    const response = await fetch(`groups/${encodeURIComponent(asking.room)}`)
    if (!response.ok) return
    const { members } = await response.json()
    if (visit === asking) showMembers(members, asking.name)
  } catch {
    // The server is away: the state of the WebSocket says so.
  }
}

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
  if (input.value.trim() !== '' && visit.socket.send(input.value)) input.value = ''
  input.focus()
})

find('leave').addEventListener('click', leave)

document.addEventListener('visibilitychange', () => {
  if (document.hidden || visit === undefined) return
  visit.unread = 0
  title()
  visit.socket.retryNow()
  refreshMembers()
})

addEventListener('online', () => visit?.socket.retryNow())

// A reload, or a link such as ?room=lobby&user=jane, leads straight into the room.
const asked = new URLSearchParams(location.search)
if (Object.hasOwn(users, asked.get('user') ?? '') && asked.get('room')) enter(asked.get('user'), asked.get('room'))
else show('door')
