/* global document */

export const find = id => document.getElementById(id)

export function element (tag, properties = {}, ...children) {
  const { className, ...rest } = properties
  const node = document.createElement(tag)
  if (className) node.className = className
  for (const [name, value] of Object.entries(rest)) node.setAttribute(name, value)
  node.append(...children)
  return node
}

export const forEars = text => element('span', { className: 'visually-hidden' }, text)

/** The initials of a name on a colour that is always the same for it. */
export function avatar (name) {
  const initials = name.split(/\s+/).map(part => [...part][0] ?? '').slice(0, 2).join('').toUpperCase()
  const node = element('span', { className: 'avatar', 'aria-hidden': 'true' }, initials)
  let hash = 7
  for (const character of name) hash = (hash * 31 + character.codePointAt(0)) % 360
  node.style.setProperty('--hue', hash)
  return node
}
