/** The first part of the page's script: makes elements, and writes numbers and times. Texts never become markup. */
export const elements = `const byId = id => document.getElementById(id)
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
  // Narrow pages show the name beside each cell.
  for (const { cells } of rows) names.forEach((name, at) => { cells[at].dataset.name = name })
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
const rate = value => value > 0 && value < 10 ? Math.max(0.1, value).toFixed(1) : number(value)
const ms = seconds => {
  if (seconds === null || seconds >= 10) return seconds === null ? '–' : '10 s or more'
  return seconds < 0.01 ? (seconds * 1000).toFixed(1) + ' ms' : number(seconds * 1000) + ' ms'
}
const lasting = ms => {
  const s = Math.max(0, Math.round(ms / 1000))
  if (s < 120) return s + ' s'
  if (s < 7200) return Math.round(s / 60) + ' min'
  return s < 172800 ? Math.round(s / 3600) + ' h' : Math.round(s / 86400) + ' d'
}
const since = (at, now = Date.now()) => lasting(now - at)
const time = at => {
  const then = new Date(at)
  const today = then.toDateString() === new Date().toDateString()
  return (today ? '' : then.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' }) + ' ') + then.toLocaleTimeString('en-GB')
}
`
