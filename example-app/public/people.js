import { avatar, element, find } from './dom.js'

/** Who is here: one entry for each person, however many connections they have. */
export class People {
  #ownName
  /** Where each person is, in words, by name. */
  #people = new Map()
  #away = new Set()
  /** The names that the reader knows to be here; undefined before the first list. */
  #told

  constructor (ownName) {
    this.#ownName = ownName
    this.#show()
  }

  /** Replaces the list. */
  update (members) {
    const people = new Map(members.map(member => [nameOf(member), placeOf(member)]))
    // The user of this page is missing: Redis lost its data, and the instances are about to write it anew.
    if (!people.has(this.#ownName)) return
    this.#people = people
    for (const name of this.#away) if (!people.has(name)) this.#away.delete(name)
    this.#show()
    // The first list is no news.
    this.#told ??= new Set(people.keys())
  }

  /** Returns who came and who went since the last call, of all people or of one. */
  news (only) {
    const told = this.#told ?? new Set()
    const isAsked = name => only === undefined || name === only
    const came = [...this.#people.keys()].filter(name => isAsked(name) && !told.has(name))
    const went = [...told].filter(name => isAsked(name) && !this.#people.has(name))
    for (const name of came) told.add(name)
    for (const name of went) told.delete(name)
    return { came, went }
  }

  /** Shows that somebody's last connection broke, who may come back for a while. */
  away (name, isAway) {
    if (isAway && !this.#people.has(name)) return
    if (isAway) this.#away.add(name)
    else if (!this.#away.delete(name)) return
    this.#show()
  }

  #show () {
    const people = this.#people
    const names = [...people.keys()].sort((a, b) => Number(b === this.#ownName) - Number(a === this.#ownName) || a.localeCompare(b))
    find('members').replaceChildren(...names.map(name => {
      const isAway = this.#away.has(name)
      return element('li', isAway ? { className: 'away' } : {}, avatar(name), element('div', {},
        element('span', { className: 'name' }, name, ...(name === this.#ownName ? [element('span', { className: 'you' }, ' you')] : [])),
        element('span', { className: 'where' }, isAway ? 'lost connection' : people.get(name))
      ))
    }))
    find('count').textContent = people.size
  }
}

export function nameOf ({ info }) {
  return info?.name ?? 'Somebody'
}

/** The instance of the latest connection, and how many connections there are if it is not the only one. */
function placeOf ({ info, connections }) {
  const instance = info?.instance ?? '?'
  return connections > 1 ? `${instance}, ${connections} connections` : instance
}
