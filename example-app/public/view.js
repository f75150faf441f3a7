/* global document */

const maxRows = 500
const joinedOrLeft = /^.+ (?:joined|left) the room$/
const timeOf = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' })

export const find = id => document.getElementById(id)

/** What a text frame of the room means. Whatever it says, it only ever becomes text on the page, never markup. */
export function parse (frame) {
  const said = /^\[([^\]]+)\]: ([^]*)$/.exec(frame)
  if (said) return { kind: 'said', name: said[1], text: said[2] }
  if (joinedOrLeft.test(frame)) return { kind: 'presence', text: frame }
  if (/^Welcome .+ to .+!$/.test(frame)) return { kind: 'note', text: frame }
  return { kind: 'announcement', text: frame }
}

export function element (tag, properties = {}, ...children) {
  const { className, ...rest } = properties
  const node = document.createElement(tag)
  if (className) node.className = className
  for (const [name, value] of Object.entries(rest)) node.setAttribute(name, value)
  node.append(...children)
  return node
}

/** The initials of a name on a colour that is always the same for it. */
export function avatar (name) {
  const initials = name.split(/\s+/).map(part => [...part][0] ?? '').slice(0, 2).join('').toUpperCase()
  const node = element('span', { className: 'avatar', 'aria-hidden': 'true' }, initials)
  let hash = 7
  for (const character of name) hash = (hash * 31 + character.codePointAt(0)) % 360
  node.style.setProperty('--hue', hash)
  return node
}

export function addMessage (log, message, ownName) {
  const follow = log.scrollHeight - log.scrollTop - log.clientHeight < 80
  log.append(message.kind === 'said' ? saidRow(log.lastElementChild, message, ownName) : noteRow(message))
  while (log.children.length > maxRows) log.firstElementChild.remove()
  if (follow) log.scrollTop = log.scrollHeight
}

function saidRow (previous, { name, text }, ownName) {
  const row = element('li', { className: 'said', 'data-name': name })
  if (name === ownName) row.classList.add('own')
  if (previous?.dataset.name === name) row.classList.add('more')
  const now = new Date()
  row.append(avatar(name), element('div', { className: 'bubble' },
    element('span', { className: 'name' }, name, element('span', { className: 'visually-hidden' }, ':')),
    element('p', {}, text),
    element('time', { datetime: now.toISOString() }, timeOf.format(now))
  ))
  return row
}

function noteRow ({ kind, text }) {
  return element('li', { className: kind }, element('p', {}, text))
}

/** One entry for each person, with the instances that hold their connections. */
export function showMembers (members, ownName) {
  const people = new Map()
  for (const { name = 'Somebody', instance = '?' } of members) {
    const instances = people.get(name) ?? new Map()
    people.set(name, instances.set(instance, (instances.get(instance) ?? 0) + 1))
  }
  const names = [...people.keys()].sort((a, b) => Number(b === ownName) - Number(a === ownName) || a.localeCompare(b))
  find('members').replaceChildren(...names.map(name => element('li', {}, avatar(name), element('div', {},
    element('span', { className: 'name' }, name, ...(name === ownName ? [element('span', { className: 'you' }, ' you')] : [])),
    element('span', { className: 'where' }, [...people.get(name)].sort().map(([instance, times]) => times > 1 ? `${instance} ×${times}` : instance).join(', '))
  ))))
  find('count').textContent = people.size
}
