import { elements } from './elements.ts'

/** The script of the page, as the browser gets it. Whatever came from clients goes into the page as text, never as markup. */
export const js = `${elements}
const instances = new Map()
const plots = new Map()
let allowed = []

/** Rejects with the message of the server's error. */
async function ask (path, body) {
  const post = body && { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
  const response = await fetch(path, { ...post, cache: 'no-store' })
  const answer = await response.json().catch(() => undefined)
  if (!response.ok) throw new Error((answer && answer.message) || 'HTTP status ' + response.status)
  return answer
}
const query = name => '?name=' + encodeURIComponent(name)

function plot (name, value) {
  const points = plots.get(name) ?? []
  plots.set(name, points)
  points.push(value)
  if (points.length > 60) points.shift()
  const top = Math.max(1e-9, ...points)
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  svg.setAttribute('viewBox', '0 0 59 30')
  svg.setAttribute('preserveAspectRatio', 'none')
  svg.setAttribute('aria-hidden', 'true')
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline')
  line.setAttribute('points', points.map((point, at) => (60 - points.length + at) + ',' + (29 - point / top * 28)).join(' '))
  svg.append(line)
  return svg
}

function tile (name, value, text) {
  const tile = element('div')
  tile.append(element('dt', name), element('dd', text), plot(name, value))
  return tile
}

const isSilent = one => Date.now() - one.seenAt > 3 * one.everyMs + 4000
const live = () => [...instances.values()].filter(one => !isSilent(one))

/** Sums what each instance counted, by name; the most first. */
function summed (field) {
  const sums = new Map()
  for (const one of live()) for (const [name, count] of one[field]) sums.set(name, (sums.get(name) ?? 0) + count)
  return [...sums].sort((a, b) => b[1] - a[1])
}

function instance (one) {
  const article = element('article')
  const silent = isSilent(one)
  const state = silent ? 'silent for ' + since(one.seenAt) : one.status + ' for ' + since(one.since)
  article.append(
    element('h3', (one.label ? one.label + ' · ' : '') + one.id), element('p', state, silent || one.status !== 'up' ? 'bad' : 'good'),
    element('p', 'Connections ' + number(one.connections) + ' · groups ' + number(one.groups) + ' · slow clients ' + number(one.slow) +
      ' · event loop late by ' + ms(one.lagP99) + ' (p99) · ' + Math.round(one.load * 100) + ' % busy · ' +
      number(one.memory / 1048576) + ' MiB')
  )
  if (one.redis) {
    article.append(element('p', 'Redis links ' + (one.redis.up ? 'up' : 'down') + ' · reconnects ' +
      number(one.redis.reconnects) + ' · timeouts ' +
      number(one.redis.timeouts) + ' · lease renewed ' + ms(one.redis.leaseAgeMs / 1000) + ' ago', one.redis.up ? '' : 'bad'))
  }
  article.append(element('p', 'version ' + one.version + ', Node ' + one.node + ', up ' + since(one.startedAt) +
    ', backplane ' + one.backplane, 'quiet'))
  return article
}

function show () {
  const now = Date.now()
  // By this page's own clock. An instance that sends nothing for a while is shown as silent, and removed a minute later.
  for (const [id, one] of instances) if (now - one.seenAt > 3 * one.everyMs + 64000) instances.delete(id)
  const all = [...instances.values()].sort((a, b) => (a.label ?? '') + a.id < (b.label ?? '') + b.id ? -1 : 1)
  const sum = field => live().reduce((total, one) => total + one[field], 0)
  const worst = field => live().reduce((most, one) => one[field] === null ? most : Math.max(most ?? 0, one[field]), null)
  byId('totals').replaceChildren(
    tile('Connections', sum('connections'), number(sum('connections'))),
    tile('Messages in / s', sum('receivedPerSecond'), number(sum('receivedPerSecond'))),
    tile('Messages out / s', sum('sentPerSecond'), number(sum('sentPerSecond'))),
    tile('Delivery p99', worst('deliveryP99') ?? 0, ms(worst('deliveryP99'))),
    tile('onMessage p99', worst('onMessageP99') ?? 0, ms(worst('onMessageP99'))),
    tile('Refused / s', sum('refusedPerSecond'), number(sum('refusedPerSecond')))
  )
  byId('instances').replaceChildren(...all.map(instance))
  const silent = all.filter(isSilent).map(one => (one.label ?? one.id) + ' is silent: it hangs, was stopped, or lost Redis')
  const problems = new Set([...silent, ...live().flatMap(one => one.problems)])
  byId('problems').replaceChildren(...[...problems].map(problem => element('li', problem)))
  for (const [id, field, kind] of [['groups', 'busiest', 'group'], ['users', 'users', 'user']]) {
    const rows = summed(field).slice(0, 10).map(([name, count]) => row(link(kind, name), number(count)))
    // Keep the list while one of its links has the focus.
    if (!byId(id).contains(document.activeElement)) byId(id).replaceChildren(...rows)
  }
  const events = live().flatMap(one => one.events).sort((a, b) => b.at - a.at).slice(0, 20)
  const repeated = times => times > 1 ? ' · ' + number(times) + ' times' : ''
  const lines = events.map(({ at, text, times }) => element('li', time(at) + ' ' + text + repeated(times)))
  byId('events').replaceChildren(...lines.length > 0 ? lines : [element('li', 'None')])
}

/** Which group or user the URL asks for. */
function chosen () {
  const [, kind, name] = /^#(group|user)=(.+)$/.exec(location.hash) ?? []
  try {
    return kind && { kind, name: decodeURIComponent(name) }
  } catch {
    return undefined
  }
}

const titles = { disconnect: 'Disconnect', kick: 'Kick', block: 'Block', unblock: 'Unblock' }

/** Asks for confirmation, then acts. */
function confirmed (order) {
  byId('dialog-title').textContent = titles[order.action] + ': ' + order.userId + (order.group ? ' out of ' + order.group : '')
  byId('dialog-go').textContent = titles[order.action]
  byId('dialog-reason-row').hidden = order.action !== 'disconnect' && order.action !== 'kick'
  byId('dialog-minutes-row').hidden = order.action !== 'block'
  byId('dialog-reason').value = ''
  byId('dialog-go').onclick = async () => {
    byId('dialog').close()
    // Otherwise the list with the focus would not be replaced.
    document.activeElement?.blur()
    const reason = byId('dialog-reason').value
    const extra = order.action === 'block'
      ? { forMs: Math.round(Number(byId('dialog-minutes').value) * 60000) }
      : reason && order.action !== 'unblock' ? { reason } : {}
    try {
      const { done } = await ask('actions', { ...order, ...extra })
      note = titles[order.action] + ' done, connections: ' + number(done)
    } catch (error) {
      note = titles[order.action] + ' failed: ' + error.message
    }
    void detail()
  }
  byId('dialog').showModal()
}

const offer = (action, userId, group) => allowed.includes(action)
  ? [button(titles[action], () => confirmed(group === undefined ? { action, userId } : { action, userId, group }), 'danger')]
  : []

async function groupView (name) {
  const [group, history] = await Promise.all([
    ask('group' + query(name)), allowed.includes('history') ? ask('history' + query(name)) : undefined
  ])
  const members = group.presence.map(({ userId, session, connections, joinedAt, info }) => row(
    userId === undefined ? 'anonymous' + (session ? ' ' + session : '') : link('user', userId), number(connections), since(joinedAt),
    info === undefined ? '' : JSON.stringify(info), userId === undefined ? '' : offer('kick', userId, name)[0] ?? ''
  ))
  const body = [element('h2', 'Who is there'), table(['User', 'Connections', 'Since', 'Info', ''], members)]
  if (group.more) body.push(element('p', 'and more'))
  if (history) {
    const messages = history.map(({ at, from, text }) => row(time(at), from ? from.userId ?? from.connectionId ?? '' : '', text))
    const list = history.length > 0 ? table(['Time', 'From', 'Message'], messages, 'texts') : element('p', 'None in its log')
    body.push(element('h2', 'Latest messages'), list)
  }
  return { summary: 'members in all instances: ' + number(group.members), actions: [], body }
}

async function userView (name) {
  const { groups } = await ask('user' + query(name))
  const rows = groups.map(group => row(link('group', group), offer('kick', name, group)[0] ?? ''))
  return {
    summary: 'groups: ' + number(groups.length),
    actions: ['disconnect', 'block', 'unblock'].flatMap(action => offer(action, name)),
    body: groups.length > 0 ? [table(['Group', ''], rows)] : []
  }
}

let note = ''
let shownAt = 0
async function detail () {
  const choice = chosen()
  shownAt = Date.now()
  byId('detail').hidden = choice === undefined
  byId('overview').hidden = choice !== undefined
  if (choice === undefined) return
  const title = (choice.kind === 'group' ? 'Group ' : 'User ') + choice.name
  let view
  try {
    view = await (choice.kind === 'group' ? groupView : userView)(choice.name)
  } catch (error) {
    view = { summary: 'cannot be shown: ' + error.message, actions: [], body: [] }
  }
  // Meanwhile another one may have been chosen.
  if (JSON.stringify(chosen()) !== JSON.stringify(choice)) return
  byId('h-detail').textContent = title
  byId('detail-summary').textContent = note ? view.summary + ' · ' + note : view.summary
  if (byId('detail').contains(document.activeElement)) return
  byId('detail-actions').replaceChildren(...view.actions)
  byId('detail-body').replaceChildren(...view.body)
}

async function configuration () {
  try {
    const { instances, missing } = await ask('configuration')
    byId('configuration-note').textContent = missing > 0 ? number(missing) + ' instances did not answer: no dashboard, or another key' : ''
    byId('configuration').textContent = JSON.stringify(instances, null, 2)
    byId('configuration').hidden = false
  } catch (error) {
    byId('configuration-note').textContent = 'cannot be shown: ' + error.message
  }
}

function connect () {
  const url = new URL('live', location.href)
  url.protocol = url.protocol.replace('http', 'ws')
  url.hash = ''
  const socket = new WebSocket(url)
  socket.onopen = async () => {
    byId('link').textContent = 'Live'
    allowed = await ask('permissions').catch(() => [])
    void detail()
  }
  socket.onmessage = ({ data }) => {
    const report = JSON.parse(data)
    instances.set(report.id, { ...report, seenAt: Date.now() })
    if (chosen() && Date.now() - shownAt > 2000) void detail()
  }
  socket.onclose = () => {
    byId('link').textContent = 'Not connected'
    setTimeout(connect, 1000 + Math.random() * 2000)
  }
}

const find = kind => {
  const name = byId('name').value
  if (name) location.hash = kind + '=' + encodeURIComponent(name)
}
byId('find-group').onclick = () => find('group')
byId('find-user').onclick = () => find('user')
byId('name').onkeydown = event => { if (event.key === 'Enter') find('group') }
byId('dialog-cancel').onclick = () => byId('dialog').close()
byId('configuration-show').onclick = configuration
window.onhashchange = () => {
  note = ''
  document.activeElement?.blur()
  void detail()
}
setInterval(show, 1000)
connect()
`
