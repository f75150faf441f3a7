import { details } from './details.ts'
import { elements } from './elements.ts'
import { instancesPerPage } from './overview.ts'

/** The script of the page, as the browser gets it. Whatever came from clients goes into the page as text, never as markup. */
export const js = `${elements}
${details}
const perPage = ${instancesPerPage}
const points = new Map()
const listed = new Map()
let socket
let lostAt = 0
let latest
let latestAt = 0

function plot (name, value) {
  const line = points.get(name) ?? []
  points.set(name, line)
  line.push(value)
  if (line.length > 60) line.shift()
  const top = Math.max(1e-9, ...line)
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  svg.setAttribute('viewBox', '0 0 59 30')
  svg.setAttribute('preserveAspectRatio', 'none')
  svg.setAttribute('aria-hidden', 'true')
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'polyline')
  path.setAttribute('points', line.map((point, at) => (60 - line.length + at) + ',' + (29 - point / top * 28)).join(' '))
  svg.append(path)
  return svg
}

function tile (name, value, text) {
  const tile = element('div')
  tile.append(element('dt', name), element('dd', text), plot(name, value))
  return tile
}

function cell (name, text, more, className) {
  const made = element('td', text, className)
  made.dataset.name = name
  if (more) made.append(element('small', more))
  return made
}

function redis ({ redis, backplane }) {
  if (!redis) return cell('Backplane', backplane)
  const more = [
    redis.leaseAgeMs === null ? 'no lease yet' : 'lease ' + (redis.leaseAgeMs / 1000).toFixed(1) + ' s ago',
    ...redis.reconnects > 0 ? [number(redis.reconnects) + ' reconnects'] : [],
    ...redis.timeouts > 0 ? [number(redis.timeouts) + ' timeouts'] : []
  ]
  return cell('Redis', redis.up ? 'up' : 'down', more.join(' · '), redis.up ? '' : 'bad')
}

function instance (one) {
  const made = element('tr')
  const name = element('th', one.label ?? one.id)
  name.scope = 'row'
  name.append(element('small', (one.label ? one.id + ' · ' : '') + one.version + ' · Node ' + one.node + ' · up ' + lasting(one.upMs)))
  const well = one.state === 'up' && !one.problem
  const silent = one.state === 'silent'
  const state = one.state + ' for ' + lasting(one.stateMs)
  if (silent) made.className = 'quiet'
  made.append(
    name,
    cell('State', state, silent ? '' : one.problem, well ? 'good' : 'bad'),
    cell('Connections', number(one.connections), one.slow > 0 ? number(one.slow) + ' slow' : ''),
    cell('Groups', number(one.groups)),
    cell('Loop p99', ms(one.lagP99), '', one.lagP99 > 0.1 ? 'bad' : ''),
    cell('Busy', Math.round(one.load * 100) + '\\u00a0%', '', one.load > 0.9 ? 'bad' : ''),
    cell('Memory', number(one.memory / 1048576) + '\\u00a0MiB'),
    redis(one)
  )
  return made
}

function list ({ rows, found, page }) {
  byId('instances').replaceChildren(...rows.map(instance))
  const from = page * perPage
  byId('instances-found').textContent = found === 0
    ? 'No instance found'
    : found > perPage ? number(from + 1) + ' to ' + number(from + rows.length) + ' of ' + number(found) : ''
  byId('page-back').hidden = byId('page-next').hidden = found <= perPage
  byId('pages').hidden = found <= perPage && found > 0
  byId('page-back').disabled = page === 0
  byId('page-next').disabled = from + perPage >= found
  question.page = page
}

/** Shows the latest frame; the plots go on only with a new one. */
function show ({ summary, list: instances }) {
  const { totals } = summary
  byId('totals').replaceChildren(
    tile('Connections', totals.connections, number(totals.connections)),
    tile('Messages in / s', totals.receivedPerSecond, rate(totals.receivedPerSecond)),
    tile('Messages out / s', totals.sentPerSecond, rate(totals.sentPerSecond)),
    tile('Delivery p99, worst', totals.deliveryP99 ?? 0, ms(totals.deliveryP99)),
    tile('onMessage p99, worst', totals.onMessageP99 ?? 0, ms(totals.onMessageP99)),
    tile('Refused / s', totals.refusedPerSecond, rate(totals.refusedPerSecond))
  )
  const { versions } = summary
  byId('versions').textContent = versions.length > 1
    ? 'Several versions run: ' + versions.map(([version, count]) => version + ' on ' + number(count)).join(', ')
    : ''
  list(instances)
  byId('problems').replaceChildren(...summary.problems.map(problem => element('li', problem)))
  const { instances: all, well } = summary
  byId('verdict').textContent = well === all
    ? 'All well: ' + number(well) + (well === 1 ? ' instance is up' : ' instances are up')
    : number(all - well) + ' of ' + number(all) + ' instances need a look'
  byId('verdict').className = well === all ? 'good' : 'bad'
  for (const [id, counts, kind] of [['groups', summary.busiest, 'group'], ['users', summary.users, 'user']]) {
    const rows = counts.map(([name, count]) => row(link(kind, name), number(count)))
    // Keep the list while nothing changes, or one of its links has the focus: a click takes a moment.
    const text = JSON.stringify(counts)
    if (listed.get(id) === text || byId(id).contains(document.activeElement)) continue
    listed.set(id, text)
    byId(id).replaceChildren(...rows.length > 0 ? rows : [row('None', '')])
  }
  const repeated = times => times > 1 ? ' · ' + number(times) + ' times' : ''
  const events = summary.events.map(({ at, text, times }) => element('li', time(at) + ' ' + text + repeated(times)))
  byId('events').replaceChildren(...events.length > 0 ? events : [element('li', 'None')])
}

const question = { find: '', order: 'name', page: 0 }
function turn (changes) {
  Object.assign(question, changes)
  if (socket.readyState === 1) socket.send(JSON.stringify(question))
}

/** Tells when reports stop coming, so that nobody takes old figures for current ones. */
function check () {
  if (!latest || socket.readyState !== 1) return
  const late = Date.now() - latestAt > 3 * latest.everyMs + 4000
  byId('link').textContent = late
    ? 'No report for ' + since(latestAt) + ': the instance that serves this page hangs'
    : 'Live, every ' + latest.everyMs / 1000 + ' s'
  byId('link').className = late ? 'bad' : 'good'
  document.body.classList.toggle('old', late)
}

function connect () {
  const url = new URL('live', location.href)
  url.protocol = url.protocol.replace('http', 'ws')
  url.hash = ''
  socket = new WebSocket(url)
  let opened = false
  socket.onopen = async () => {
    opened = true
    // Each instance counts its own rounds, and this may be another instance.
    latest = undefined
    turn({})
    allowed = await ask('permissions').catch(() => [])
    void detail()
  }
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data)
    // An answer to another part of the list has the same summary: plots have one point for each round.
    if (latest?.round === frame.round) list(frame.list)
    else show(frame)
    latest = frame
    latestAt = Date.now()
    check()
    if (chosen() && isOld()) void detail()
  }
  socket.onclose = ({ code }) => {
    if (opened) lostAt = Date.now()
    // The server wants to know again whether this page may look.
    if (opened && code === 1012) return connect()
    byId('link').textContent = lostAt === 0
      ? 'Cannot connect, and tries again'
      : 'Not connected since ' + time(lostAt) + ': what you see is from before'
    byId('link').className = 'bad'
    document.body.classList.add('old')
    setTimeout(connect, 1000 + Math.random() * 2000)
  }
}

const find = kind => {
  const name = byId('name').value
  if (name || kind === 'groups') location.hash = kind + '=' + encodeURIComponent(name)
}
byId('find-group').onclick = () => find('group')
byId('find-user').onclick = () => find('user')
byId('find-groups').onclick = () => find('groups')
byId('name').onkeydown = event => { if (event.key === 'Enter') find('group') }
let typing
byId('find-instance').oninput = () => {
  clearTimeout(typing)
  typing = setTimeout(() => turn({ find: byId('find-instance').value, page: 0 }), 200)
}
byId('order').onchange = () => turn({ order: byId('order').value, page: 0 })
byId('page-back').onclick = () => turn({ page: question.page - 1 })
byId('page-next').onclick = () => turn({ page: question.page + 1 })
byId('dialog-cancel').onclick = () => byId('dialog').close()
byId('configuration-show').onclick = configuration
window.onhashchange = () => {
  note = ''
  cursor = undefined
  document.activeElement?.blur()
  void detail()
}
setInterval(check, 1000)
connect()
`
