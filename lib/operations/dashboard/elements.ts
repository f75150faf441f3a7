/** The first part of the page's script: makes elements, shows numbers and times, asks the server. */
export const elements = `const plots = new Map()
const byId = id => document.getElementById(id)
const element = (name, text, className) => {
  const made = document.createElement(name)
  if (text !== undefined) made.textContent = text
  if (className) made.className = className
  return made
}
const button = (text, act, className) => {
  const made = element('button', text, className)
  made.addEventListener('click', act)
  return made
}
const link = (kind, name) => {
  const made = element('a', name)
  made.href = '#' + kind + '=' + encodeURIComponent(name)
  return made
}
const row = (...cells) => {
  const made = element('tr')
  for (const cell of cells) {
    const box = element('td')
    box.append(cell)
    made.append(box)
  }
  return made
}
const table = (names, rows, className) => {
  const made = element('table', undefined, className)
  const head = made.createTHead().insertRow()
  for (const name of names) {
    const cell = element('th', name)
    cell.scope = 'col'
    head.append(cell)
  }
  made.createTBody().append(...rows)
  return made
}
const number = value => Math.round(value).toLocaleString('en')
const ms = seconds => seconds === null ? '–' : seconds * 1000 < 10 ? (seconds * 1000).toFixed(1) + ' ms' : number(seconds * 1000) + ' ms'
const since = at => {
  const s = Math.max(0, Math.round((Date.now() - at) / 1000))
  return s < 120 ? s + ' s' : s < 7200 ? Math.round(s / 60) + ' min' : s < 172800 ? Math.round(s / 3600) + ' h' : Math.round(s / 86400) + ' d'
}
const time = at => new Date(at).toLocaleTimeString('en-GB')

/** Rejects with what the server said. */
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
`
