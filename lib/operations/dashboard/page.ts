/** The page, its style and its script, as the browser gets them: three files without a build step, from nowhere else. */

export const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>WebSocket groups</title>
<link rel="stylesheet" href="dashboard.css">
<script src="dashboard.js" type="module"></script>
</head>
<body>
<header><h1>WebSocket groups</h1><p id="link" role="status">Connecting</p></header>
<main>
<section aria-label="Problems"><ul id="problems"></ul></section>
<section aria-labelledby="h-total"><h2 id="h-total">All instances</h2><dl id="totals"></dl></section>
<section aria-labelledby="h-instances"><h2 id="h-instances">Instances</h2><div id="instances"></div></section>
<section aria-labelledby="h-groups"><h2 id="h-groups">Busiest groups</h2><table><thead><tr><th>Group<th>Members</tr></thead>
<tbody id="groups"></tbody></table></section>
<section aria-labelledby="h-events"><h2 id="h-events">Gaps and limits</h2><ol id="events"></ol></section>
</main>
</body>
</html>
`

export const css = `:root { color-scheme: light dark; --line: #8884; --bad: #b3261e; --good: #146c2e; --plot: #3367d6 }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #7bd88f; --plot: #8ab4f8 } }
* { box-sizing: border-box }
body { margin: 0; font: 15px/1.45 system-ui, sans-serif; background: Canvas; color: CanvasText }
header, main { max-width: 1100px; margin: 0 auto; padding: 0 16px }
header { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline; gap: 0 16px }
h1 { font-size: 20px } h2 { font-size: 16px; margin: 24px 0 8px }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 8px; margin: 0 }
dl div { border: 1px solid var(--line); border-radius: 6px; padding: 8px; min-width: 0 }
dt { font-size: 13px } dd { margin: 0; font-size: 20px; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
svg { display: block; width: 100%; height: 32px } polyline { fill: none; stroke: var(--plot); stroke-width: 1.5; vector-effect: non-scaling-stroke }
article { border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px; margin-bottom: 8px; overflow-wrap: anywhere }
article h3 { margin: 0; font-size: 15px } article p { margin: 4px 0 0 }
table { width: 100%; border-collapse: collapse } td, th { text-align: left; padding: 4px 8px 4px 0; border-bottom: 1px solid var(--line);
overflow-wrap: anywhere } td:last-child, th:last-child { text-align: right; width: 6em }
ul, ol { padding-left: 20px; overflow-wrap: anywhere } #problems:empty { display: none }
.bad, #problems { color: var(--bad); font-weight: 600 } .good { color: var(--good) }
`

export const js = `const instances = new Map()
const plots = new Map()
const byId = id => document.getElementById(id)
const element = (name, text, className) => {
  const made = document.createElement(name)
  if (text !== undefined) made.textContent = text
  if (className) made.className = className
  return made
}
const number = value => Math.round(value).toLocaleString('en')
const ms = seconds => seconds === null ? '–' : seconds * 1000 < 10 ? (seconds * 1000).toFixed(1) + ' ms' : number(seconds * 1000) + ' ms'
const since = at => {
  const s = Math.max(0, Math.round((Date.now() - at) / 1000))
  return s < 120 ? s + ' s' : s < 7200 ? Math.round(s / 60) + ' min' : s < 172800 ? Math.round(s / 3600) + ' h' : Math.round(s / 86400) + ' d'
}

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

function show () {
  const now = Date.now()
  // By this page's own clock: one that says nothing for a while is shown as silent, and goes after a minute.
  for (const [id, { seenAt }] of instances) if (now - seenAt > 60000) instances.delete(id)
  const all = [...instances.values()].sort((a, b) => (a.label ?? '') + a.id < (b.label ?? '') + b.id ? -1 : 1)
  const live = all.filter(one => now - one.seenAt < 10000)
  const sum = field => live.reduce((total, one) => total + one[field], 0)
  const worst = field => live.reduce((most, one) => one[field] === null ? most : Math.max(most ?? 0, one[field]), null)
  byId('totals').replaceChildren(
    tile('Connections', sum('connections'), number(sum('connections'))),
    tile('Messages in / s', sum('receivedPerSecond'), number(sum('receivedPerSecond'))),
    tile('Messages out / s', sum('sentPerSecond'), number(sum('sentPerSecond'))),
    tile('Delivery p99', worst('deliveryP99') ?? 0, ms(worst('deliveryP99'))),
    tile('onMessage p99', worst('onMessageP99') ?? 0, ms(worst('onMessageP99'))),
    tile('Refused / s', sum('refusedPerSecond'), number(sum('refusedPerSecond')))
  )
  byId('instances').replaceChildren(...all.map(one => {
    const article = element('article')
    const silent = now - one.seenAt >= 10000
    const state = silent ? 'silent for ' + since(one.seenAt) : one.status + ' for ' + since(one.since)
    article.append(
      element('h3', (one.label ? one.label + ' · ' : '') + one.id), element('p', state, silent || one.status !== 'up' ? 'bad' : 'good'),
      element('p', 'Connections ' + number(one.connections) + ' · groups ' + number(one.groups) + ' · slow clients ' + number(one.slow) +
        ' · event loop late by ' + ms(one.lagP99) + ' (p99) · ' + Math.round(one.load * 100) + ' % busy · ' + number(one.memory / 1048576) + ' MiB'),
      element('p', 'version ' + one.version + ', Node ' + one.node + ', up ' + since(one.startedAt) + ', backplane ' + one.backplane)
    )
    return article
  }))
  byId('problems').replaceChildren(...[...new Set(live.flatMap(one => one.problems))].map(problem => element('li', problem)))
  const groups = new Map()
  for (const one of live) for (const [name, members] of one.busiest) groups.set(name, (groups.get(name) ?? 0) + members)
  byId('groups').replaceChildren(...[...groups].sort((a, b) => b[1] - a[1]).slice(0, 10).map(([name, members]) => {
    const row = element('tr')
    row.append(element('td', name), element('td', number(members)))
    return row
  }))
  const events = live.flatMap(one => one.events).sort((a, b) => b.at - a.at).slice(0, 20)
  const lines = events.map(({ at, text }) => element('li', new Date(at).toLocaleTimeString('en-GB') + ' ' + text))
  byId('events').replaceChildren(...lines.length > 0 ? lines : [element('li', 'None')])
}

function connect () {
  const url = new URL('live', location.href)
  url.protocol = url.protocol.replace('http', 'ws')
  const socket = new WebSocket(url)
  socket.onopen = () => { byId('link').textContent = 'Live' }
  socket.onmessage = ({ data }) => {
    const report = JSON.parse(data)
    instances.set(report.id, { ...report, seenAt: Date.now() })
  }
  socket.onclose = () => {
    byId('link').textContent = 'Not connected'
    setTimeout(connect, 1000 + Math.random() * 2000)
  }
}

setInterval(show, 1000)
connect()
`
